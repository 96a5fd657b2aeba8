"""Plans that are calls: what they look like as JSON, with arguments that refer to earlier results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.agent.chained_calls import referred
from pentad.agent.planning.base import Needs
from pentad.agent.planning.prompts import tool_lines, worked_tasks
from pentad.agent.tools.base import Tool
from pentad.json_text import parse_json
from pentad.types import Message, ToolCall

_REFERENCE = {"type": "string", "pattern": "^\\$[1-9][0-9]?(\\.[A-Za-z_][A-Za-z0-9_]*)?$"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """Calls in an order in which they could be made one after another, and what each waits for."""

    calls: tuple[ToolCall, ...]
    needs: Needs

    @property
    def depth(self) -> int:
        """Calls on the longest way through the plan; 0 of an empty one."""
        depths: list[int] = []
        for needed in self.needs:
            depths.append(1 + max((depths[other] for other in needed), default=0))
        return max(depths, default=0)


def call_plan_schema(tools: Sequence[Tool], most: int) -> dict[str, Any]:
    """The JSON Schema of such a plan: each call has a tool, its arguments and the calls it comes after."""
    items = [_call_schema(tool, most) for tool in tools]
    plan: dict[str, Any] = {"type": "array", "maxItems": most}
    plan["items"] = items[0] if len(items) == 1 else {"anyOf": items}
    return {
        "type": "object",
        "properties": {"plan": plan},
        "required": ["plan"],
        "additionalProperties": False,
    }


def _call_schema(tool: Tool, most: int) -> dict[str, Any]:
    number = {"type": "integer", "minimum": 1, "maximum": max(1, most - 1)}
    fields = {
        "tool": {"const": tool.name},
        "arguments": _arguments(tool.parameters),
        "after": {"type": "array", "items": number, "maxItems": most},
    }
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _arguments(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tool's schema, where each value that is no text may also be a reference to a result."""
    if "$defs" in parameters or "definitions" in parameters:
        return {"type": "object"}
    properties = {
        name: value if value.get("type") == "string" else {"anyOf": [value, _REFERENCE]}
        for name, value in parameters.get("properties", {}).items()
    }
    return {**parameters, "properties": properties}


def call_plan(text: str, prefix: str) -> CallPlan:
    """The plan that a model wrote; ids of its calls begin with `prefix`.

    Raises ValueError, TypeError or KeyError for another form, and for a call that waits for one that
    is not before it.
    """
    calls, needs = [], []
    for place, item in enumerate(parse_json(text)["plan"]):
        arguments = json.dumps(item["arguments"], ensure_ascii=False)
        after = {int(number) - 1 for number in item.get("after", ())} | set(referred(arguments))
        if any(not 0 <= other < place for other in after):
            raise ValueError(f"call {place + 1} is to wait for one that is not before it")
        calls.append(ToolCall(id=f"{prefix}{place}", name=str(item["tool"]), arguments=arguments))
        needs.append(tuple(sorted(after)))
    return CallPlan(calls=tuple(calls), needs=tuple(needs))


def call_plan_shots(tools: Sequence[Tool]) -> tuple[Message, ...]:
    """Worked plans, made of the tools' own examples; none if they bring none."""
    messages: list[Message] = []
    for goal, tasks in worked_tasks(tools):
        plan = [{"tool": name, "arguments": dict(example.arguments), "after": []} for name, example in tasks]
        text = json.dumps({"plan": plan}, separators=(",", ":"), ensure_ascii=False)
        messages += [Message(role="user", content=f"Goal: {goal}"), Message(role="assistant", content=text)]
    return tuple(messages)


def signatures(tools: Sequence[Tool]) -> str:
    """One line per tool with the JSON of its arguments' types."""
    lines = tool_lines(tools).split("\n")
    return "\n".join(
        f"{line}; arguments {json.dumps(_types(tool.parameters))}"
        for line, tool in zip(lines, tools, strict=True)
    )


def _types(parameters: Mapping[str, Any]) -> dict[str, object]:
    return {name: value.get("type", "any") for name, value in parameters.get("properties", {}).items()}
