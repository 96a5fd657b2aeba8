"""Tool: one thing that an agent can do, and how the runtime may treat its effect."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pentad.agent.memory.base import Memory
from pentad.agent.ports import ModelPort
from pentad.agent.tool_events import Effects
from pentad.choice import Choice
from pentad.errors import ToolFailed, UnknownName
from pentad.model.reduction.base import Surprise
from pentad.ranges import in_range
from pentad.registry import FAMILIES
from pentad.types import Clock, Decision, ToolSpec

Ask = Callable[[str, str, int], Awaitable[str]]
AskOther = Callable[[str, str, str, int], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a person answered to a tool's question."""

    action: Literal["accept", "decline", "cancel"]
    """`cancel`: nobody answered."""
    content: Mapping[str, Any] | None = None
    """The values asked for."""


Question = Callable[[str, Mapping[str, Any] | None], Awaitable[Reply]]
"""Puts a question to a person while a call is under way: what is asked, and the values' JSON Schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAnswer:
    """What came of a task that was given to a member of the team."""

    status: str
    """How its run ended, e.g. `answered`."""
    text: str
    error: str = ""


Delegate = Callable[[str, str], Awaitable[MemberAnswer]]
"""Gives a task to a member of the team: (member, task)."""


class InDoubt(ToolFailed):
    """The call broke off in a way that leaves open whether its effect happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """Where a call comes from. A function tool that names a parameter of this type receives it."""

    key: str
    """The call's idempotency key: the same after a restart, never the same for another call."""
    run_id: str
    tenant: str
    agent: str
    deadline_s: float
    """On `clock`; what is not done by then is given up."""
    clock: Clock = time.monotonic
    wall: Clock = time.time
    ask: Ask | None = None
    """Asks the run's model: (system, user text, max_tokens). Counts against the run's budget."""
    ask_other: AskOther | None = None
    """As `ask`, of the served model named first; several may be asked at once."""
    surprise: Surprise | None = None
    """How surprising a text is to a served model; one pass, within the run's budget."""
    question: Question | None = None
    """Asks a person; the call's time limit pauses meanwhile."""
    left_turns: Mapping[str, str] = field(default_factory=dict)
    """Turns of the run's conversation that left its prompts and are kept, by id."""
    delegate: Delegate | None = None
    """Only for the actions of a team's coordinator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncated:
    """A result of which a tool kept only the beginning, to bound its memory."""

    data: bytes
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced:
    """A result and where it is from, where that is not the call itself."""

    content: Any
    source: str
    """As the journal has it, e.g. `kept, 12 s old`."""
    decisions: tuple[Decision, ...] = ()
    """Why it was taken from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dated:
    """A result that says when it was so, and until when it may be used."""

    content: Any
    as_of_s: float
    """Wall clock."""
    expires_s: float | None = None
    """Wall clock; None where the tool does not know."""


Call = Callable[[Mapping[str, Any], ToolContext], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A task that a tool does, and the arguments that do it."""

    task: str
    arguments: Mapping[str, Any]
    result: str = ""
    """What the tool returns for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A named operation with typed arguments.

    `effects` says what a repetition does: `none` may be repeated freely; `keyed` passes
    ToolContext.key to a target that carries each key out once; `unkeyed` is never repeated when
    a crash left it in doubt: the model is told honestly that nobody knows whether it happened.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON Schema of type object; arguments are checked against it before every call."""
    call: Call
    """Awaits the result: a str, bytes, Truncated, Dated, Sourced, or anything that JSON can hold."""
    effects: Effects = "unkeyed"
    timeout_s: float = 30.0
    max_result_bytes: int = 16_384
    cost: float = 0.0
    """Money per call at most; held from the budget before."""
    at_once: int | None = None
    """Calls of it under way at once, over all runs of a process; others wait. None: any number."""
    blocked: str = ""
    """Why the tool may not be used now; such a tool is hidden from the model and every call denied."""
    examples: tuple[Example, ...] = ()
    """Shown to small models, which learn more from two examples than from a schema."""

    def __post_init__(self) -> None:
        in_range(f"at_once of tool {self.name!r}", self.at_once, least=1, hint="leave it out for no limit")

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        return ToolSpec(name=self.name, description=self.description, parameters=self.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolServices:
    """What built-in tools are made from. Their factories take it, then their options by name."""

    models: ModelPort
    memory: Memory | None = None
    sandbox: Choice = field(default_factory=lambda: Choice(name=FAMILIES["sandbox"].baseline))
    """Where code tools run what the model wrote."""


class Toolbox:
    """Tools by name."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            self.add(tool)

    def add(self, tool: Tool) -> None:
        """Registers a tool; agents may use it from their next step on. Raises ValueError on a taken name."""
        if tool.name in self._tools:
            raise ValueError(f"there is already a tool {tool.name!r}")
        self._tools[tool.name] = tool

    def names(self) -> tuple[str, ...]:
        """All names, in order of registration."""
        return tuple(self._tools)

    def get(self, name: str) -> Tool:
        """The tool. Raises UnknownName with the known ones."""
        if name not in self._tools:
            raise UnknownName(
                f"no tool {name!r}", hint=f"known: {', '.join(self._tools) or 'none'}", param="tools"
            )
        return self._tools[name]
