"""Single: one agent, no team."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import LeadActs, Move, Team, TeamCost
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """Leaves every step to the agent itself.

    Source: none; it is what there is without a team.
    """

    name: ClassVar[str] = "single"
    needs: ClassVar[frozenset[str]] = frozenset()
    keep_fraction: ClassVar[float] = 1.0
    max_tasks: ClassVar[int] = 0

    def members(self, state: RunState) -> Mapping[str, AgentSpec]:
        """The agent's own, of which there are none."""
        return state.spec.agents

    def actions(self, team: Team) -> tuple[Tool, ...]:  # noqa: ARG002
        """None."""
        return ()

    def next(self, team: Team) -> Move:  # noqa: ARG002
        """The agent."""
        return LeadActs()

    def cost(self, team: Team) -> TeamCost:  # noqa: ARG002
        """Nothing."""
        return TeamCost(sub_runs=0, prompt_tokens=0)
