"""Agent runs in this process: wired, followed to their end, left resumable on Ctrl-C."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from pentad.agent.environment.replay import agreement, replay
from pentad.agent.events import Record
from pentad.agent.journal import Journal
from pentad.agent.run_status import UNFINISHED
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec, team_of
from pentad.agent.sub_run_events import SubRunChanged, SubRunEnded
from pentad.agent.tool_events import ApprovalAsked
from pentad.agent.tools.functions import in_thread
from pentad.agent.unattended import answer_unattended, cancel_unattended
from pentad.agent.unattended import pending as pending_in
from pentad.application import wiring
from pentad.application.cli.approving import confirmed
from pentad.application.cli.client import ServerClient
from pentad.application.cli.output import note, plain, print_json, show_error
from pentad.application.cli.trace import ending, explanation_summary, printer, run_summary
from pentad.application.config import Settings
from pentad.content import Media
from pentad.errors import Conflict, InvalidRequest, NotFound, Unavailable


async def run_agent(
    settings: Settings, spec: AgentSpec, goal: str, *, media: Sequence[Media] = (), as_json: bool
) -> int:
    """Starts a run and follows it; 0 when it ended with an answer, else 1."""
    async with wiring.build(settings) as services:
        agents = _agents(services.agents)
        run_id = await agents.start(spec, goal, media=media, foreground=True)
        return await _follow(agents, run_id, "default", as_json)


async def resume_run(settings: Settings, run_id: str, *, tenant: str, as_json: bool) -> int:
    """Takes a run up again and follows it; 0 when it ended with an answer, else 1."""
    async with wiring.build(settings) as services:
        agents = _agents(services.agents)
        await agents.resume(run_id, tenant=tenant, foreground=True)
        return await _follow(agents, run_id, tenant, as_json)


async def cancel_run(journal: Journal, run_id: str, url: str, api_key: str | None) -> None:
    """Ends a run wherever it is worked on.

    Raises NotFound; Conflict when it has ended, or when a process works on it that does not answer.
    """
    try:
        await cancel_unattended(journal, run_id)
    except Conflict as conflict:
        if journal.run(run_id).status not in UNFINISHED:
            raise
        try:
            ServerClient(url, api_key, timeout_s=60).post(f"/v1/runs/{run_id}/cancel")
        except Unavailable:
            raise conflict from None


def only_pending(journal: Journal, run_id: str, approval_id: str | None) -> tuple[str, ApprovalAsked]:
    """The question that is meant, the named one or the only one, and the run or sub-run that asks it.

    Raises NotFound, InvalidRequest.
    """
    found = pending_in(journal, run_id)
    if approval_id is None and len(found) == 1:
        return found[0]
    pending = {asked.approval_id: (asking, asked) for asking, asked in found}
    known = ", ".join(f"{i} ({asked.tool})" for i, (_, asked) in pending.items()) or "none"
    if approval_id is None and pending:
        raise InvalidRequest(
            f"run {run_id!r} asks {len(pending)} questions", hint=f"name one: {known}", param="approval"
        )
    if approval_id is None or approval_id not in pending:
        wanted = f"approval {approval_id!r}" if approval_id else "any approval"
        raise NotFound(f"run {run_id!r} does not wait for {wanted}", hint=f"pending: {known}")
    return pending[approval_id]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a person says to a run that waits."""

    approve: bool
    note: str = ""
    input: dict[str, Any] | None = None


async def answer_run(
    journal: Journal, run_id: str, approval_id: str, answer: Answer, server: ServerClient
) -> bool:
    """Answers a waiting run wherever it is; whether a process works on it.

    Raises NotFound; Conflict when it is answered, or when a process works on it that does not answer.
    """
    try:
        await answer_unattended(
            journal, run_id, approval_id, approved=answer.approve, note=answer.note, content=answer.input
        )
    except Conflict as conflict:
        if journal.run(run_id).status not in UNFINISHED:
            raise
        try:
            server.post(f"/v1/runs/{run_id}/approvals/{approval_id}", asdict(answer))
        except Unavailable:
            raise conflict from None
        return True
    return False


async def fork_run(
    settings: Settings,
    run_id: str,
    step: int,
    *,
    goal: str | None,
    model: str | None,
    tenant: str,
    as_json: bool,
) -> int:
    """Starts a run out of another and follows it; 0 when it ended with an answer, else 1."""
    async with wiring.build(settings) as services:
        agents = _agents(services.agents)
        made = await agents.fork(run_id, step, goal=goal, model=model, tenant=tenant, foreground=True)
        return await _follow(agents, made, tenant, as_json)


async def replay_run(
    settings: Settings, run_id: str, *, model: str | None, tenant: str, as_json: bool
) -> int:
    """Starts a run in the record of another and follows it; 0 when it ended with an answer, else 1."""
    async with wiring.build(settings) as services:
        agents = _agents(services.agents)
        made = await replay(agents, run_id, model=model, tenant=tenant, foreground=True)
        done = await _follow(agents, made, tenant, as_json)
        score = await agreement(agents, made, tenant=tenant)
        note(f"{made} replayed {run_id}: {score.about}")
        return done


def resume_command(spec: AgentSpec, run_id: str) -> str:
    """What goes on with a run; Python tools are loaded only for an agent file that a person names."""
    named = any(".py:" in tool for member in team_of(spec) for tool in member.tools)
    return f"pentad runs resume {run_id}" + (" --agents FILE (its agent file)" if named else "")


def _agents(agents: AgentRuntime | None) -> AgentRuntime:
    if agents is None:
        raise Unavailable("this configuration runs no agents")
    return agents


def _asks(record: Record) -> bool:
    """Whether the run, or one of its sub-runs, asks a person something now."""
    match record.event:
        case ApprovalAsked() | SubRunChanged(status="waiting") | SubRunEnded(waits=True):
            return True
    return False


async def _follow(agents: AgentRuntime, run_id: str, tenant: str, as_json: bool) -> int:
    show = printer()
    try:
        async with aclosing(agents.events(run_id, tenant=tenant, patient=True)) as records:
            async for record in records:
                if not as_json:
                    show(record)
                if (
                    _asks(record)
                    and not await _answered(agents, run_id, tenant)
                    # Nobody can be asked: what still works goes on, and then the run waits.
                    and agents.show(run_id, tenant=tenant).status == "waiting"
                ):
                    break
    except BaseException:
        spec = agents.show(run_id, tenant=tenant).spec
        note(f"\n{run_id} stops here; {resume_command(spec, run_id)} goes on with it")
        raise
    state, explanation = agents.show(run_id, tenant=tenant), agents.explain(run_id, tenant=tenant)
    if as_json:
        print_json(run_summary(state) | {"explain": explanation_summary(explanation)})
    else:
        sys.stdout.write(ending(state, explanation) + "\n")
    if not state.ended:
        note(f"{run_id} waits for a person; pentad runs approve {run_id} (or deny) answers")
        note(f"then {resume_command(state.spec, run_id)} goes on with it")
    return 0 if state.status == "answered" else 1


async def _answered(agents: AgentRuntime, run_id: str, tenant: str) -> bool:
    """Asks the person at the terminal all that is pending; False when nobody can be asked."""
    while pending := agents.pending(run_id, tenant=tenant):
        if not sys.stdin.isatty():
            return False
        asking, asked = pending[0]
        await _put(agents, asking, asked, tenant)
    return True


async def _put(agents: AgentRuntime, run_id: str, asked: ApprovalAsked, tenant: str) -> None:
    """Puts one question to the person at the terminal, until the answer fits."""
    while True:
        answer = await in_thread(lambda: answer_at_terminal(asked))
        try:
            await agents.answer(
                run_id, asked.approval_id, approved=answer.approve, content=answer.input, tenant=tenant
            )
        except Conflict:
            return  # it expired meanwhile
        except InvalidRequest as error:
            show_error(error)
            continue
        return


def answer_at_terminal(asked: ApprovalAsked) -> Answer:
    """What the person at the terminal says, with the values that are asked for."""
    if asked.kind == "tool":
        return Answer(approve=confirmed(f"Allow {asked.tool}({asked.arguments})?"))
    if asked.kind == "tools":
        return Answer(approve=confirmed(f"{asked.message}:\n{asked.arguments}\nAccept them?"))
    if not confirmed(f"{asked.tool} asks: {asked.message}\nAnswer it?"):
        return Answer(approve=False)
    kinds = {name: field.get("type") for name, field in (asked.schema or {}).get("properties", {}).items()}
    return Answer(approve=True, input={name: prompted(name, kind) for name, kind in kinds.items()})


def prompted(name: str, kind: str | None) -> Any:
    """One value from the terminal: text as it is, anything else as JSON where it can be read so."""
    sys.stderr.write(f"{plain(name)}: ")
    sys.stderr.flush()
    text = sys.stdin.readline().rstrip("\n")
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
