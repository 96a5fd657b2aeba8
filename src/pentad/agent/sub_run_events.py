"""What can happen with sub-runs in a run: begun, waiting or going on, ended; and who was given what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pentad.agent.run_status import RunStatus, Unfinished
from pentad.types import Budget, Decision, Message, ToolCall, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The run that a sub-run belongs to, and the call of its step that it answers."""

    run_id: str
    step: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """The prompt of the lead's call that gave the task, as the sub-run's own calls begin."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    """Those that it presents in front; the sub-run may call its own only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubRunStarted:
    """Journaled before the sub-run's own first event, so that a restart begins it once or finds it."""

    durable: ClassVar[bool] = True
    step: int
    index: int
    run_id: str
    agent: str
    """The member's name in the team."""
    goal: str
    budget: Budget = field(default_factory=Budget)
    """Carved from what this run has left, and held there until the sub-run has ended."""
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubRunChanged:
    """A sub-run begins to wait for a person, or goes on."""

    step: int
    index: int
    run_id: str
    status: Unfinished
    waits: bool = False
    """Whether now nothing of this run is at work, for all that is under way waits for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubRunEnded:
    """A sub-run has ended; what it used is of this run's budget. Its answer is in its own journal."""

    durable: ClassVar[bool] = True
    step: int
    index: int
    run_id: str
    status: RunStatus
    tokens: int = 0
    cost: float = 0.0
    tool_calls: int = 0
    waits: bool = False
    """As in `SubRunChanged`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinated:
    """The coordinator decided a step without asking a model: tasks for members, or the team's answer."""

    step: int
    calls: tuple[ToolCall, ...] = ()
    """One for each task, carried out at once; their results are journaled in this order."""
    answer: str = ""
    """Where there are no tasks."""
    problem: str = ""
    """Why the team does not stand by the answer; "" where it does, and in records of earlier versions."""
    decisions: tuple[Decision, ...] = ()
