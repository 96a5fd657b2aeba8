"""What the runtime asks of a planner (coverage.md, interface 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pentad.agent.events import Purpose
from pentad.agent.state import Exchange, RunState
from pentad.agent.tools.base import Tool
from pentad.types import Decision, Message, OutputFormat, ToolCall, ToolChoice, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a planner sees. All of it is folded from the journal, so a restart sees the same."""

    state: RunState
    tools: tuple[Tool, ...]
    """Those that may be used now."""
    withheld: tuple[tuple[str, str], ...] = ()
    """The others, each with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageGroup:
    """Messages that belong together: a call and its results are kept or left out as one."""

    messages: tuple[Message, ...]
    pinned: bool = False
    """Whether it must stay whatever the budget; the others are left out oldest first."""
    noted: bool = False
    """Whether memories and summaries are put before it; one turn of a draft is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCallDraft:
    """One model call as the planner wants it; the context builder makes it fit."""

    purpose: Purpose
    system: str
    turns: tuple[MessageGroup, ...]
    """In order."""
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = field(default_factory=lambda: ToolChoice(mode="none"))
    format: OutputFormat = field(default_factory=OutputFormat)
    max_tokens: int
    stop: tuple[str, ...] = ()
    next_hint: str = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePlan:
    """The model laid out sub-goals, as (tool or "", task)."""

    goals: tuple[tuple[str, str], ...]
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WantsTools:
    """The model asks for tool calls."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The model gave the final answer."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """The answer is of no use as it is; the model is told `problem` and may try again."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuses:
    """The model will not go on; the run ends."""

    why: str


Reading = MadePlan | WantsTools | Answers | Unusable | Refuses


class Planner(Protocol):
    """Decides one step at a time. Holds no state: the view has it all."""

    @property
    def name(self) -> str: ...

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:
        """Tools that this planner will not have called in this run, each with the reason."""
        ...

    def exhausted(self, state: RunState) -> bool:
        """Whether so many steps have failed that the run is given up."""
        ...

    def draft(self, view: View) -> ModelCallDraft:
        """What to ask the model in this step."""
        ...

    def read(self, view: View, answer: Exchange) -> Reading:
        """What the model's answer to the draft of the same view means."""
        ...
