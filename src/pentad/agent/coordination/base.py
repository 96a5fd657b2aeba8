"""What the runtime asks of a coordinator (coverage.md, interface 2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.sub_run_state import SubRun
from pentad.agent.tools.base import Tool
from pentad.choice import build
from pentad.errors import InvalidRequest
from pentad.json_text import parse_json
from pentad.types import Budget, Decision

MEMBERS = "members"
"""A need: the agent must name sub-agents (`agents`)."""
PEERS = "peers"
"""A need beside `members`: at least two of them."""


DELEGATE = "delegate"
"""The name of the call that gives a task to a member, whoever makes it."""
_IDENT = re.compile(r"([a-z_]+)\.(\d+)-\d+-\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of one task that was given out and has come back."""

    member: str
    task: str
    text: str
    """What the member answered; what went wrong where it did not."""
    ok: bool = True
    purpose: str = "task"
    about: int = 0
    """Both as in the assignment; a task that the lead gave has none."""
    tokens: int = 0
    """What the member's run used."""


@dataclass(frozen=True, kw_only=True)
class Team:
    """What a coordinator sees. All of it is folded from the journal, so a restart sees the same."""

    state: RunState
    """Of the run that leads; its agent is the lead."""
    members: Mapping[str, AgentSpec]
    """Those who may be given tasks, by name, as the coordinator has them."""

    @property
    def log(self) -> tuple[SubRun, ...]:
        """The tasks given out so far, in the order in which they were given."""
        return tuple(child for _, child in sorted(self.state.children.items()))

    @cached_property
    def rounds(self) -> tuple[tuple[Report, ...], ...]:
        """What came back, step by step, in the order in which it was given out."""
        tokens = {place: child.used.tokens for place, child in self.state.children.items()}
        found = []
        for exchange in self.state.closed:
            reports = []
            for place, wanted in enumerate(exchange.calls):
                result = exchange.results.get(place)
                if wanted.name != DELEGATE or result is None:
                    continue
                given, ident = _arguments(wanted.arguments), _IDENT.fullmatch(wanted.id)
                report = Report(
                    member=given.get("member", ""),
                    task=given.get("task", ""),
                    text=result.content,
                    ok=result.status == "ok",
                    purpose=ident[1] if ident else "task",
                    about=int(ident[2]) if ident else 0,
                    tokens=tokens.get((exchange.step, exchange.first + place), 0),
                )
                reports.append(report)
            if reports:
                found.append(tuple(reports))
        return tuple(found)

    @cached_property
    def reports(self) -> tuple[Report, ...]:
        """All that came back, in order."""
        return tuple(report for each in self.rounds for report in each)

    @property
    def last_step(self) -> bool:
        """Whether the run has this step only: who gives out tasks now never sees what comes of them."""
        return self.state.step >= self.state.spec.max_steps

    @property
    def budget_left(self) -> Budget:
        """What the whole team may still use."""
        return self.state.budget_left


def _arguments(text: str) -> Mapping[str, str]:
    try:
        given = parse_json(text)
    except ValueError:
        return {}
    return {k: str(v) for k, v in given.items()} if isinstance(given, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A task for a member, who works on it in a run of its own."""

    member: str
    task: str
    purpose: str = "task"
    """What the coordinator wants of it (`bid`, `check`), in small letters; comes back with the report."""
    about: int = 0
    """The number of the piece of work that it serves, as the coordinator counts; comes back too."""

    @property
    def ident(self) -> str:
        """How the call begins that carries it out; a step and a place follow."""
        return f"{self.purpose}.{self.about}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class GivesUp:
    """The team has no answer that it stands by; the run ends as refused."""

    why: str
    """In one sentence, for people."""
    answer: str = ""
    """What there is, if anything."""
    decisions: tuple[Decision, ...] = ()


Move = LeadActs | Assigns | Concludes | GivesUp


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
        """What the agent must have: `members`, of whom two where `peers` is a need too, or nothing.

        Without that need, members are refused.
        """
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

    def members(self, state: RunState) -> Mapping[str, AgentSpec]:
        """Who may be given tasks, by name: the agent's own sub-agents, or what is made of them.

        Equal states get equal members, so that a sub-run is begun or found again after a restart.
        """
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
    if PEERS in coordinator.needs and len(spec.agents) < 2:
        raise InvalidRequest(
            f"coordinator {coordinator.name!r} needs two members, agent {spec.name!r} has {len(spec.agents)}",
            hint="name another sub-agent in agents",
            param="agents",
        )
    if spec.agents and not wanted:
        raise InvalidRequest(
            f"coordinator {coordinator.name!r} gives no tasks to {', '.join(spec.agents)}",
            hint="choose one that does, e.g. coordinator: supervisor",
            param="coordinator",
        )
    return coordinator
