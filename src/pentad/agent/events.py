"""What can happen in a run. The journal holds these and nothing else; state is their fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pentad.agent.codec import Malformed, decode, encode, readable
from pentad.agent.model_events import (
    Compacted,
    ModelAnswered,
    ModelAsked,
    ModelFailed,
    Purpose,
    SampleSelected,
    TextStreamed,
)
from pentad.agent.run_status import RunStatus
from pentad.agent.sub_run_events import (
    Coordinated,
    Inherited,
    Parent,
    SubRunChanged,
    SubRunEnded,
    SubRunStarted,
)
from pentad.agent.tool_events import (
    ApprovalAnswered,
    ApprovalAsked,
    ResultReduced,
    ToolIntended,
    ToolReturned,
    ToolsOffered,
    ToolsWithheld,
)
from pentad.content import Media
from pentad.types import Budget, Decision, Message, Objective, Span, ToolCall

StepOutcome = Literal["planned", "called_tools", "answered", "replanned", "thought", "refused", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The run that a fork was made of, and the step from which it goes its own way."""

    run_id: str
    step: int
    traceparent: str = ""
    """That of the run's own first event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """Always the first event. `agent` is the whole spec, so that a run outlives its file."""

    agent: Mapping[str, Any]
    goal: str
    tenant: str
    media: tuple[Media, ...] = ()
    """What the goal shows beside its text; the data, if they are kept, lie apart (`part_store.py`)."""
    history: tuple[Message, ...] = ()
    objective: Objective = field(default_factory=Objective)
    budget: Budget = field(default_factory=Budget)
    data_label: str | None = None
    forked_from: Origin | None = None
    default_model: str = ""
    """What served an agent that names no model when the run began; "" in records of earlier versions."""
    foreground: bool = False
    """Someone follows it in a terminal: when that process is gone, nobody goes on unasked."""
    parent: Parent | None = None
    """Whose sub-run it is; it is begun, taken up and ended with that run only."""
    inherited: Inherited | None = None
    """What a sub-run's prompts begin with, where its agent inherits."""
    priority: int = 0
    """Of its model calls; lower comes first."""
    steps_behind: int | None = None
    """Steps of whoever started it that wait for its answer; None where nobody says."""
    traceparent: str = ""
    """Where whoever asked for it stands in a trace (W3C); "" where nobody says, or none is exported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed:
    """A process took the run up again; instants before it are of another clock."""

    in_doubt: int = 0
    """Tool calls whose intent was journaled and whose result was not."""
    waiting: int = 0
    """Approvals that are still pending."""
    foreground: bool = False
    """As in `RunStarted`, of the process that took it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """Long-term memories put into the context, best first, as (id, text, score)."""

    step: int
    items: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The sub-goals to work through, as (tool or "", task)."""

    step: int
    goals: tuple[tuple[str, str], ...]
    needs: tuple[tuple[int, ...], ...] | None = None
    """For each the places of the earlier ones that it waits for; None where each waits for the one before."""
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerDecided:
    """The planner took the step by itself, and no model was asked: calls, a thought, a plan or the answer."""

    step: int
    purpose: Purpose
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    label: str = ""
    """What the planner calls this step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchOutcome:
    """What one of the parallel calls of a step came to."""

    outcome: StepOutcome
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """One step of the planner is over."""

    step: int
    outcome: StepOutcome
    detail: str = ""
    decisions: tuple[Decision, ...] = ()
    branches: tuple[BranchOutcome, ...] = ()
    """Of each parallel call, in order; empty where there was one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """Always the last event. `answer` is what there is, also when the run did not succeed."""

    durable: ClassVar[bool] = True
    status: RunStatus
    answer: str = ""
    error: str | None = None


Event = (
    RunStarted
    | RunResumed
    | Recalled
    | Compacted
    | ModelAsked
    | ModelAnswered
    | SampleSelected
    | ModelFailed
    | Planned
    | PlannerDecided
    | ToolsWithheld
    | ToolsOffered
    | ResultReduced
    | ApprovalAsked
    | ApprovalAnswered
    | ToolIntended
    | ToolReturned
    | Coordinated
    | SubRunStarted
    | SubRunChanged
    | SubRunEnded
    | StepEnded
    | RunEnded
)

JOURNALED: Mapping[str, type[Event]] = {
    "run_started": RunStarted,
    "run_resumed": RunResumed,
    "recalled": Recalled,
    "compacted": Compacted,
    "model_asked": ModelAsked,
    "model_answered": ModelAnswered,
    "sample_selected": SampleSelected,
    "model_failed": ModelFailed,
    "planned": Planned,
    "planner_decided": PlannerDecided,
    "tools_withheld": ToolsWithheld,
    "tools_offered": ToolsOffered,
    "result_reduced": ResultReduced,
    "approval_asked": ApprovalAsked,
    "approval_answered": ApprovalAnswered,
    "tool_intended": ToolIntended,
    "tool_returned": ToolReturned,
    "coordinated": Coordinated,
    "sub_run_started": SubRunStarted,
    "sub_run_changed": SubRunChanged,
    "sub_run_ended": SubRunEnded,
    "step_ended": StepEnded,
    "run_ended": RunEnded,
}
_NAMES = {kind: name for name, kind in JOURNALED.items()} | {TextStreamed: "text_streamed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One event with its place in the run. `spans` are the agent's own times since the last one."""

    run_id: str
    sequence: int
    """1 for the first; a live-only event repeats the number of the last journaled one."""
    at_s: float
    """Wall clock, seconds since 1970; for people."""
    clock_s: float
    """Monotonic clock of the writing process; for intervals."""
    event: Event | TextStreamed
    spans: tuple[Span, ...] = ()

    @property
    def kind(self) -> str:
        """The event's stable name, e.g. `tool_returned`."""
        return _NAMES[type(self.event)]

    @property
    def live(self) -> bool:
        """Whether the event is streamed only and not in the journal."""
        return isinstance(self.event, TextStreamed)

    def to_json(self) -> dict[str, Any]:
        """The record as one flat JSON object, for streams and listings; the journal has it exactly."""
        return {
            "run_id": self.run_id,
            "sequence": self.sequence,
            "at_s": self.at_s,
            "type": self.kind,
            **readable(encode(self.event)),
        }


def is_durable(event: Event) -> bool:
    """Whether the event acknowledges an effect and must survive a power cut, not only a crash."""
    return bool(getattr(type(event), "durable", False))


def from_json(kind: str, payload: Any) -> Event:
    """The event of a journal row. Raises Malformed for anything that is not exactly an event."""
    if kind not in JOURNALED:
        raise Malformed("kind", f"unknown event {kind!r}")
    return decode(JOURNALED[kind], payload)
