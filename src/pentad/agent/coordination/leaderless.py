"""Leaderless: what coordinators share that decide every step themselves, without asking the lead's model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import (
    MEMBERS,
    Assignment,
    Assigns,
    Concludes,
    GivesUp,
    LeadActs,
    Move,
    Team,
    TeamCost,
)
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.ranges import in_range
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderless:
    """A coordinator whose `move` says who has each step, and `best` what there is when it must stop.

    Invariant: a run ends within its steps and `max_tasks`; tasks that nobody could read the answers of
    are not given out.
    """

    keep_fraction: float = 0.25
    """What stays, 0 to 1, of the budget that is left when a step gives out tasks, for the steps after it."""
    max_tasks: int = 64
    """Tasks that a run gives out, at most; then it ends with what there is."""

    name: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({MEMBERS})

    def __post_init__(self) -> None:
        in_range("keep_fraction", self.keep_fraction, least=0, most=1)
        in_range("max_tasks", self.max_tasks, least=1)

    def members(self, state: RunState) -> Mapping[str, AgentSpec]:
        """The agent's own."""
        return state.spec.agents

    def actions(self, team: Team) -> tuple[Tool, ...]:  # noqa: ARG002
        """None: the lead's model is not asked."""
        return ()

    def next(self, team: Team) -> Move:
        """The strategy's move, or what there is when no step or no task is left for it."""
        move = self.move(team)
        if not isinstance(move, Assigns):
            return move
        over = len(team.log) + len(move.assignments) - self.max_tasks
        if not team.last_step and over <= 0:
            return move
        bound = "max_steps" if team.last_step else "max_tasks"
        ended = self.best(team)
        if isinstance(ended, GivesUp):
            return GivesUp(why=f"{ended.why}; raise {bound}", answer=ended.answer, decisions=ended.decisions)
        stopped = self.decision("stop", bound, constraint=bound)
        return Concludes(answer=ended.answer, decisions=(*ended.decisions, stopped))

    def move(self, team: Team) -> Move:  # noqa: ARG002
        """Who has the step, as far as the strategy decides."""
        return LeadActs()

    def best(self, team: Team) -> Concludes | GivesUp:
        """What the team would say now: the newest answer, unless the strategy knows better."""
        said = [report.text for report in team.reports if report.ok]
        return Concludes(answer=said[-1]) if said else GivesUp(why="no member answered")

    def cost(self, team: Team) -> TeamCost:
        """A run for each task that may still be given out; the lead's model is not asked."""
        return TeamCost(sub_runs=max(0, self.max_tasks - len(team.log)), prompt_tokens=0)

    def asks(
        self,
        members: Iterable[str],
        task: str,
        purpose: str,
        about: int = 0,
        decisions: tuple[Decision, ...] = (),
    ) -> Assigns:
        """One task for all of these members, at once."""
        given = tuple(Assignment(member=m, task=task, purpose=purpose, about=about) for m in members)
        return Assigns(assignments=given, decisions=decisions)

    def decision(
        self,
        subject: str,
        chosen: str,
        candidates: Mapping[str, float | None] | None = None,
        constraint: str | None = None,
    ) -> Decision:
        """A record of one choice; the runtime sets its instant."""
        return Decision(
            layer="agent",
            policy=self.name,
            subject=subject,
            chosen=chosen,
            candidates=tuple((candidates or {}).items()),
            constraint=constraint,
        )
