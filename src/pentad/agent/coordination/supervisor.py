"""Supervisor: a lead agent that gives tasks to the members of its team and reads what they answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.codec import dumps, encode
from pentad.agent.coordination.base import MEMBERS, LeadActs, Move, Team, TeamCost
from pentad.agent.coordination.delegate import delegate_action
from pentad.agent.tools.base import Tool
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """Lets a lead agent give tasks to named sub-agents, several at once, and merge their answers.

    The lead decides by its own planner; it sees one more tool, `delegate`, whose result is the
    member's answer. A member's run sees its task and nothing else of the lead's, unless it inherits.

    Source: survey III-A, centralised structure: a lead plans, assigns to workers and merges. Ours gives
    each task a budget of its own, carved from the lead's.
    """

    keep_fraction: float = 0.25
    """What the lead keeps, 0 to 1, of the budget that is left when it gives out tasks."""
    max_tasks: int = 16
    """Tasks that a run gives out, at most; then the lead goes on by itself."""

    name: ClassVar[str] = "supervisor"
    needs: ClassVar[frozenset[str]] = frozenset({MEMBERS})

    def __post_init__(self) -> None:
        in_range("keep_fraction", self.keep_fraction, least=0, most=1)
        in_range("max_tasks", self.max_tasks, least=1)

    def actions(self, team: Team) -> tuple[Tool, ...]:
        """`delegate`, until `max_tasks` have been given out in the steps before."""
        given = sum(child.step < team.state.step for child in team.log)
        return (delegate_action(team.members),) if given < self.max_tasks else ()

    def next(self, team: Team) -> Move:  # noqa: ARG002
        """The lead, always."""
        return LeadActs()

    def cost(self, team: Team) -> TeamCost:
        """A run for each task that may still be given out, and the action in every prompt."""
        told = sum(len(dumps(encode(action.spec))) for action in self.actions(team))
        return TeamCost(sub_runs=max(0, self.max_tasks - len(team.log)), prompt_tokens=math.ceil(told / 3))
