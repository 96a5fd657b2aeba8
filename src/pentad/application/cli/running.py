"""Agent runs in this process: wired, followed to their end, left resumable on Ctrl-C."""

from __future__ import annotations

import sys
from contextlib import aclosing

from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime, cancel_unattended
from pentad.agent.spec import AgentSpec
from pentad.application import wiring
from pentad.application.cli.client import ServerClient
from pentad.application.cli.output import note, print_json
from pentad.application.cli.trace import ending, explanation_summary, printer, run_summary
from pentad.application.config import Settings
from pentad.errors import Conflict, Unavailable


async def run_agent(settings: Settings, spec: AgentSpec, goal: str, *, as_json: bool) -> int:
    """Starts a run and follows it; 0 when it ended with an answer, else 1."""
    async with wiring.build(settings) as services:
        agents = _agents(services.agents)
        run_id = await agents.start(spec, goal)
        return await _follow(agents, run_id, "default", as_json)


async def resume_run(settings: Settings, run_id: str, *, tenant: str, as_json: bool) -> int:
    """Takes a run up again and follows it; 0 when it ended with an answer, else 1."""
    async with wiring.build(settings) as services:
        agents = _agents(services.agents)
        await agents.resume(run_id, tenant=tenant)
        return await _follow(agents, run_id, tenant, as_json)


async def cancel_run(journal: Journal, run_id: str, url: str, api_key: str | None) -> None:
    """Ends a run wherever it is worked on.

    Raises NotFound; Conflict when it has ended, or when a process works on it that does not answer.
    """
    try:
        await cancel_unattended(journal, run_id)
    except Conflict as conflict:
        if journal.run(run_id).status != "running":
            raise
        try:
            ServerClient(url, api_key, timeout_s=60).post(f"/v1/runs/{run_id}/cancel")
        except Unavailable:
            raise conflict from None


def _agents(agents: AgentRuntime | None) -> AgentRuntime:
    if agents is None:
        raise Unavailable("this configuration runs no agents")
    return agents


async def _follow(agents: AgentRuntime, run_id: str, tenant: str, as_json: bool) -> int:
    show = printer()
    try:
        async with aclosing(agents.events(run_id, tenant=tenant)) as records:
            async for record in records:
                if not as_json:
                    show(record)
    except BaseException:
        note(f"\n{run_id} stops here; pentad runs resume {run_id} goes on with it")
        raise
    state, explanation = agents.show(run_id, tenant=tenant), agents.explain(run_id, tenant=tenant)
    if as_json:
        print_json(run_summary(state) | {"explain": explanation_summary(explanation)})
    else:
        sys.stdout.write(ending(state, explanation) + "\n")
    return 0 if state.status == "answered" else 1
