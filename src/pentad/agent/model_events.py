"""What can happen with the model in a run: asked, answered, failed; what was left out of a prompt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pentad.types import Decision, ToolCall, Usage

Purpose = Literal["plan", "act", "answer", "think", "summarise", "tool", "coordinate", "remember", "reduce"]
"""Why the model was asked; `think` is for later steps of the planner, `tool` a call that a tool made itself,
`coordinate` a step without a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftTurn:
    """A turn that left the prompt and can be brought back."""

    id: str
    text: str
    """Whole: a line `role: text` per message."""
    short: str
    """What stands in the prompt for it while it is among the older turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftTurns:
    """The turns that left, in order. Of an event: those that left then; of a state: all."""

    turns: tuple[LeftTurn, ...] = ()
    summary: str = ""
    """What stands for the oldest of all."""
    summed: int = 0
    """How many of all, from the first, are shown no longer by themselves."""

    def behind(self, before: LeftTurns | None) -> LeftTurns:
        """All turns, where these are the latest."""
        return self if before is None else replace(self, turns=(*before.turns, *self.turns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """Something was left out of the prompt because it did not fit. Never happens silently."""

    step: int
    reason: str
    dropped_turns: int
    before_tokens: int
    after_tokens: int
    summary: str = ""
    left: LeftTurns | None = None
    """What left, where the context builder keeps it by id."""


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
    branch: int = 0
    """Its place among the parallel calls of the step."""
    samples: int = 1
    prompt_sha256: str = ""
    """Of the exact prompt; the text, if it is kept, lies beside the events (`prompt_store.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One of several answers to one prompt."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    reason: str = "stop"


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
    branch: int = 0
    """Its place among the parallel calls of the step; they are journaled in this order."""
    branches: int = 1
    goal: int | None = None
    """The place in the plan of the sub-goal that it serves."""
    label: str = ""
    """What the planner calls this call."""
    candidates: tuple[Candidate, ...] = ()
    """All answers, where several were sampled; `SampleSelected` says which is the step's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSelected:
    """One of several sampled answers is the step's; the choice is journaled, so a restart keeps it."""

    step: int
    attempt: int
    index: int
    """Its place among the candidates."""
    branch: int = 0
    decisions: tuple[Decision, ...] = ()


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
class TextStreamed:
    """A piece of text as the model makes it. Live only: ModelAnswered journals the whole."""

    step: int
    attempt: int
    purpose: Purpose
    text: str
    kind: Literal["text", "reasoning"] = "text"
