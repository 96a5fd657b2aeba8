"""Replaying a run: its agent with its team in the recorded environment, so that nothing is done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pentad.agent.environment.base import Environment, EnvironmentServices, Score
from pentad.agent.events import Record
from pentad.agent.spec import AgentSpec
from pentad.choice import Choice, build

if TYPE_CHECKING:
    from pentad.agent.runtime import AgentRuntime


def replayed(spec: AgentSpec, run_id: str) -> AgentSpec:
    """The agent whose tools, and those of its sub-agents, answer as they did in that run.

    Nobody is asked for approval, since nothing acts, and no episode is remembered.
    """
    memory = spec.memory
    if memory.long_term is not None:
        memory = replace(memory, long_term=replace(memory.long_term, episodes=False))
    return replace(
        spec,
        environment=Choice(name="recorded", options={"run": run_id}),
        ask=(),
        memory=memory,
        agents={name: replayed(member, run_id) for name, member in spec.agents.items()},
    )


async def replay(
    runtime: AgentRuntime,
    run_id: str,
    *,
    model: str | None = None,
    tenant: str = "default",
    foreground: bool = False,
) -> str:
    """Begins a run with the goal, conversation, limits and agent of another, in its record; the new id.

    Args:
        model: in place of the agent's.

    Raises NotFound, JournalDamaged, and what starting a run raises.
    """
    state = runtime.show(run_id, tenant=tenant)
    return await runtime.start(
        replayed(state.spec, run_id),
        state.goal,
        model=model,
        tenant=tenant,
        history=state.history,
        objective=state.objective,
        budget=state.ledger.budget,
        data_label=state.data_label,
        foreground=foreground,
    )


async def agreement(runtime: AgentRuntime, run_id: str, *, tenant: str = "default") -> Score:
    """How far a run in an environment has come, as its world scores it. Raises Incompatible, NotFound."""
    state = runtime.show(run_id, tenant=tenant)
    environment: Environment = build("environment", state.spec.environment)

    async def read(other: str) -> Sequence[Record]:
        return runtime.records(other, tenant=tenant)

    world = await environment.open(EnvironmentServices(state=state, read=read))
    return world.score()
