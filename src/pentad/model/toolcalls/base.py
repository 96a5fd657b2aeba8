"""ToolFormat: how one kind of model writes tool calls, as data.

A turn with calls is: `opening` `before` object (`between` object)* `after`, where an object is
`{"name": NAME, "<arguments_key>": ARGUMENTS}`. Prompt, history, grammar and parser all follow
from these fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pentad.json_text import parse_json
from pentad.types import ToolCall, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """One way of writing tool calls."""

    name: str
    opening: str
    """Text or control token that begins a section of calls; empty if the answer is just the object."""
    before: str
    between: str
    after: str
    closing: str
    """How the parser knows that a section ends; empty if by whatever is no object."""
    skips: str = ""
    """Characters that may stand between objects."""
    arguments_key: str = "arguments"
    marker: str = ""
    """Text whose presence in a chat template shows that the model was trained on this format."""
    instruction: str
    """Told to models whose template cannot present tools; `{tools}` becomes one tool per line."""

    def prompt(self, tools: Iterable[ToolSpec]) -> str:
        """The tools and how to call them, for the system message."""
        lines = "\n".join(json.dumps(described(tool), ensure_ascii=False) for tool in tools)
        return self.instruction.replace("{tools}", lines)

    def write_calls(self, calls: Iterable[ToolCall]) -> str:
        """Calls of an earlier turn, as the model would have written them."""
        objects = [self.object_start(call.name) + _spaced(call.arguments) + "}" for call in calls]
        return self.opening + self.before + self.between.join(objects) + self.after if objects else ""

    def object_start(self, name: str) -> str:
        """The object up to where the arguments begin."""
        return f'{{"name": {spelled(name)}, "{self.arguments_key}": '


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


def _spaced(arguments: str) -> str:
    """The arguments with the usual separators; as they are if they are no JSON."""
    try:
        return json.dumps(parse_json(arguments or "{}"), ensure_ascii=False)
    except ValueError:
        return arguments
