"""ToolFormat: how one kind of model writes tool calls.

A turn with calls is: `opening` `before` call (`between` call)* `after`. What a call looks like, the
subclass knows: as an object (objects.py), a name before JSON (named.py), tags (tagged.py) or a call as in
Python (keyed.py). Prompt, history, grammar and parser all follow from one object of such a class.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pentad.json_text import parse_json
from pentad.model.lark import Lark
from pentad.types import ToolCall, ToolSpec

Schemas = Mapping[str, Mapping[str, Any]]
"""The schema of each offered tool's arguments, by name."""


INSTRUCTION = """You can call functions. They are described here, one per line:
{tools}

To call one, write its name and its arguments in just this form:
{example}"""


class CallReader(Protocol):
    """The state of reading one call, fed character by character from behind the format's `begin`."""

    name: str | None
    """The name, once it is complete."""
    done: bool
    """Whether the call's last character was read."""
    broken: bool
    """Whether a character came that no call has there."""

    def feed(self, char: str) -> None:
        """Reads the next character."""
        ...

    def take(self) -> str:
        """The JSON text of the arguments that came since the last call of this method."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """How calls look in the grammar where an answer begins with them, without an opening mark."""

    excluded: str
    """A regular expression for beginnings of answers that are calls, and so no text."""
    body: str
    """What stands in the grammar for such an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat(ABC):
    """One way of writing tool calls."""

    name: str
    opening: str
    """Text or control token that begins a section of calls; empty if the answer is just the calls."""
    before: str = ""
    between: str = ""
    after: str = ""
    closing: str = ""
    """How the parser knows that a section ends; empty if by whatever is no call."""
    begin: str = ""
    """What each call begins with; empty if with its name."""
    skips: str = ""
    """Characters that may stand between calls."""
    parallel: bool = True
    """Whether one turn may hold several calls."""
    marks: tuple[tuple[str, ...], ...] = ()
    """A chat template with all texts of one of these shows that the model was trained on this format."""
    instruction: str = INSTRUCTION
    """Told to models whose template cannot present tools; `{tools}` becomes one tool per line, and
    `{example}` a call."""

    def prompt(self, tools: Iterable[ToolSpec]) -> str:
        """The tools and how to call them, for the system message."""
        lines = "\n".join(json.dumps(described(tool), ensure_ascii=False) for tool in tools)
        example = self.write_calls([ToolCall(id="", name="function-name", arguments='{"argument": "value"}')])
        return self.instruction.replace("{example}", example).replace("{tools}", lines)

    def write_calls(self, calls: Iterable[ToolCall]) -> str:
        """Calls of an earlier turn, as the model would have written them."""
        written = [self.write_call(call.name, call.arguments, i) for i, call in enumerate(calls)]
        return self.opening + self.before + self.between.join(written) + self.after if written else ""

    def texts(self) -> Iterable[str]:
        """Every text in which a control token may stand that the parser has to see."""
        return (self.opening, self.before, self.between, self.after, self.closing, self.begin)

    @abstractmethod
    def write_call(self, name: str, arguments: str, index: int) -> str:
        """One call; `arguments` is JSON text, `index` its place among the turn's calls."""

    @abstractmethod
    def call_grammar(self, name: str, schema: Mapping[str, Any], lark: Lark) -> str:
        """What stands in the grammar for a call of this tool."""

    @abstractmethod
    def reader(self, schemas: Schemas) -> CallReader:
        """A fresh reader of one call."""

    def bare(self, tools: Sequence[tuple[str, Mapping[str, Any]]], lark: Lark) -> Bare | None:
        """Calls without an opening mark; None where only the mark makes a call.

        Args:
            tools: name and schema of each.
            lark: gets the rules that `body` refers to.
        """
        del tools, lark
        return None

    def bare_start(self, text: str, names: frozenset[str]) -> int | None:
        """Where in an answer without an opening mark the first call's reader begins.

        -1 if the answer does not begin with a call, None while that is open. `text` grows by one character
        from call to call.
        """
        del text, names
        return -1

    @property
    def alone(self) -> bool:
        """Whether each call is a section of its own."""
        return bool(self.opening) and self.opening in self.between

    @property
    def bare_closing(self) -> str:
        """How calls without an opening mark end; empty if by whatever is no call."""
        return ""

    @property
    def bare_skips(self) -> str:
        """Characters that may stand between and behind them."""
        return self.skips


def spelled(text: str) -> str:
    """The text as a JSON string, as calls and their grammar spell it."""
    return json.dumps(text, ensure_ascii=False)


def described(tool: ToolSpec) -> dict[str, Any]:
    """A tool in OpenAI's shape, which templates expect."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = _plain(tool.parameters)
    return {"type": "function", "function": function}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def spaced(arguments: str) -> str:
    """The arguments with the usual separators; as they are if they are no JSON."""
    try:
        return json.dumps(parse_json(arguments or "{}"), ensure_ascii=False)
    except ValueError:
        return arguments


def pairs_of(arguments: str) -> dict[str, Any]:
    """The arguments as a mapping; what was cut off or is no object becomes one value under `arguments`."""
    try:
        value = parse_json(arguments or "{}")
    except ValueError:
        value = arguments
    return value if isinstance(value, dict) else {"arguments": value}
