"""What the runtime asks of a coordinator (coverage.md, interface 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.sub_run_state import SubRun
from pentad.agent.tools.base import Tool
from pentad.choice import build
from pentad.errors import InvalidRequest
from pentad.types import Budget, Decision

MEMBERS = "members"
"""A need: the agent must name sub-agents (`agents`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """What a coordinator sees. All of it is folded from the journal, so a restart sees the same."""

    state: RunState
    """Of the run that leads; its agent is the lead."""

    @property
    def members(self) -> Mapping[str, AgentSpec]:
        """The sub-agents by name, as the agent file has them."""
        return self.state.spec.agents

    @property
    def log(self) -> tuple[SubRun, ...]:
        """The tasks given out so far, in the order in which they were given."""
        return tuple(child for _, child in sorted(self.state.children.items()))

    @property
    def budget_left(self) -> Budget:
        """What the whole team may still use."""
        return self.state.budget_left


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A task for a member, who works on it in a run of its own."""

    member: str
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadActs:
    """The lead's own planner has the step, with the coordinator's actions beside its tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigns:
    """Members work on their tasks, all at once; what they answer is journaled in this order."""

    assignments: tuple[Assignment, ...]
    decisions: tuple[Decision, ...] = ()

    def __post_init__(self) -> None:
        if not self.assignments:
            raise ValueError("a step that gives out tasks has at least one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Concludes:
    """The team has its answer; the run ends with it."""

    answer: str
    decisions: tuple[Decision, ...] = ()


Move = LeadActs | Assigns | Concludes


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamCost:
    """What a coordinator adds to a run of the lead alone, at most."""

    sub_runs: int
    """Runs of members; what each costs is its own agent's matter."""
    prompt_tokens: int
    """In every model call of the lead, for what it is told about the team; about three bytes a token."""


class Coordinator(Protocol):
    """Decides who does what, step by step. Holds no state: equal teams get equal moves."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> frozenset[str]:
        """What the agent must have: `members` or nothing. Without that need, members are refused."""
        ...

    @property
    def keep_fraction(self) -> float:
        """What stays with the lead, 0 to 1, of the budget that is left when a step gives out tasks.

        The rest is divided equally among the tasks of the step.
        """
        ...

    @property
    def max_tasks(self) -> int:
        """Tasks that a run may give out; more are refused, whoever asks for them."""
        ...

    def actions(self, team: Team) -> tuple[Tool, ...]:
        """What the lead may do in this step beside calling its tools."""
        ...

    def next(self, team: Team) -> Move:
        """Who has the step."""
        ...

    def cost(self, team: Team) -> TeamCost:
        """What it adds."""
        ...


def coordinator_for(spec: AgentSpec) -> Coordinator:
    """The coordinator that the spec names, with its options.

    Raises UnknownName, or InvalidRequest for options that do not fit, members that are missing and
    members that nobody would give a task.
    """
    coordinator: Coordinator = build("coordinator", spec.coordinator)
    wanted = MEMBERS in coordinator.needs
    if wanted and not spec.agents:
        raise InvalidRequest(
            f"coordinator {coordinator.name!r} needs members, agent {spec.name!r} has none",
            hint="name sub-agents in agents, or leave coordinator out",
            param="agents",
        )
    if spec.agents and not wanted:
        raise InvalidRequest(
            f"coordinator {coordinator.name!r} gives no tasks to {', '.join(spec.agents)}",
            hint="choose one that does, e.g. coordinator: supervisor",
            param="coordinator",
        )
    return coordinator
