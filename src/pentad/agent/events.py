"""What can happen in a run. The journal holds these and nothing else; state is their fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from pentad.agent.codec import Malformed, decode, encode, readable
from pentad.types import Budget, Decision, Message, Objective, Span, ToolCall, Usage

Purpose = Literal["plan", "act", "answer", "summarise", "tool"]
"""Why the model was asked; `tool` is a call that a tool made itself."""
Effects = Literal["none", "keyed", "unkeyed"]
ToolStatus = Literal["ok", "failed", "denied", "unknown"]
StepOutcome = Literal["planned", "called_tools", "answered", "replanned", "refused", "failed"]
RunStatus = Literal["answered", "refused", "budget_exceeded", "failed", "cancelled", "out_of_steps"]
Unfinished = Literal["running", "waiting", "stalled"]
"""`waiting`: for the answer of a person; `stalled`: until the journal can be written. Nothing is computed."""
RUN_STATES: tuple[str, ...] = (*get_args(Unfinished), *get_args(RunStatus))
UNFINISHED: tuple[Unfinished, ...] = get_args(Unfinished)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The run that a fork was made of, and the step from which it goes its own way."""

    run_id: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """Always the first event. `agent` is the whole spec, so that a run outlives its file."""

    agent: Mapping[str, Any]
    goal: str
    tenant: str
    history: tuple[Message, ...] = ()
    objective: Objective = field(default_factory=Objective)
    budget: Budget = field(default_factory=Budget)
    data_label: str | None = None
    forked_from: Origin | None = None
    default_model: str = ""
    """What served an agent that names no model when the run began; "" in records of earlier versions."""
    foreground: bool = False
    """Someone follows it in a terminal: when that process is gone, nobody goes on unasked."""


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
class Compacted:
    """Something was left out of the prompt because it did not fit. Never happens silently."""

    step: int
    reason: str
    dropped_turns: int
    before_tokens: int
    after_tokens: int
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAsked:
    """A model call is about to start; its tokens are reserved."""

    step: int
    attempt: int
    purpose: Purpose
    request_id: str
    prompt_tokens: int
    reserved_tokens: int
    reserved_cost: float = 0.0
    prompt_sha256: str = ""
    """Of the exact prompt; the text, if it is kept, lies beside the events (`prompt_store.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswered:
    """The whole answer of one model call and what it consumed."""

    step: int
    attempt: int
    purpose: Purpose
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    reason: str = "stop"
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFailed:
    """A model call broke; `retry` says whether it is tried again."""

    step: int
    attempt: int
    error: str
    retry: bool
    started: bool = True
    """Whether anything may have been generated; if not, the reservation is given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The sub-goals to work through, as (tool or "", task)."""

    step: int
    goals: tuple[tuple[str, str], ...]
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAsked:
    """A person is asked: may this tool be called so, or what shall be answered to it. Nothing is done yet."""

    durable: ClassVar[bool] = True
    step: int
    index: int
    approval_id: str
    tool: str
    arguments: str
    asked_s: float
    expires_s: float | None = None
    """Wall clock; then the agent's `ask_expired` holds. None waits for ever."""
    kind: Literal["tool", "input"] = "tool"
    """`input`: the tool is at work and asks for values (MCP elicitation)."""
    message: str = ""
    """What the tool's server says that it wants to know; foreign text."""
    schema: Mapping[str, Any] | None = None
    """JSON Schema of the values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAnswered:
    """What the person said, or that nobody did in time. A tool's intent comes only after it."""

    durable: ClassVar[bool] = True
    step: int
    index: int
    approval_id: str
    approved: bool
    by: Literal["person", "timeout"] = "person"
    note: str = ""
    """The person's words; the model is told them when the call is denied."""
    content: Mapping[str, Any] | None = None
    """The values asked for, of an `input`."""
    waiting: int = 0
    """Approvals that are still pending after this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsWithheld:
    """Tools of the agent that may not be called from now on, as (name, why); the others may."""

    step: int
    tools: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolIntended:
    """Journaled before the effect. After a crash without ToolReturned the call is in doubt."""

    durable: ClassVar[bool] = True
    step: int
    index: int
    call_id: str
    tool: str
    arguments: str
    key: str
    effects: Effects
    reserved_cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReturned:
    """What came of a tool call, exactly as the model will be told."""

    durable: ClassVar[bool] = True
    step: int
    index: int
    call_id: str
    tool: str
    status: ToolStatus
    content: str
    cut_bytes: int = 0
    """How much of the result was over the tool's cap and left out, as its marker says."""
    limit: str = ""
    """What bound the call, if anything did, e.g. `timeout_s 30`."""
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """One step of the planner is over."""

    step: int
    outcome: StepOutcome
    detail: str = ""
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """Always the last event. `answer` is what there is, also when the run did not succeed."""

    durable: ClassVar[bool] = True
    status: RunStatus
    answer: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStreamed:
    """A piece of text as the model makes it. Live only: ModelAnswered journals the whole."""

    step: int
    attempt: int
    purpose: Purpose
    text: str
    kind: Literal["text", "reasoning"] = "text"


Event = (
    RunStarted
    | RunResumed
    | Recalled
    | Compacted
    | ModelAsked
    | ModelAnswered
    | ModelFailed
    | Planned
    | ToolsWithheld
    | ApprovalAsked
    | ApprovalAnswered
    | ToolIntended
    | ToolReturned
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
    "model_failed": ModelFailed,
    "planned": Planned,
    "tools_withheld": ToolsWithheld,
    "approval_asked": ApprovalAsked,
    "approval_answered": ApprovalAnswered,
    "tool_intended": ToolIntended,
    "tool_returned": ToolReturned,
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
