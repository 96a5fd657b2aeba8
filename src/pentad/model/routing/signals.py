"""Cheap signals of whether an answer was right, from the answer alone."""

from __future__ import annotations

from collections.abc import Sequence

from pentad.execution.backend import Completion
from pentad.json_text import parse_json
from pentad.types import Request, ToolCall


def signal_of(request: Request, answer: Completion) -> float | None:
    """0 where the answer is plainly wrong in form, 1 where its form was asked for and holds; None: no sign.

    Plainly wrong is JSON that was asked for and cannot be read or was cut, a call of a tool that was not
    offered or with arguments that are no object, and no call where one was required. Text without a form
    tells nothing. A form that is right does not make an answer right: it is no worse than before.
    """
    choice = answer.choices[0]
    calls = choice.message.tool_calls
    if request.tools and (calls or request.tool_choice.mode in ("required", "named")):
        return float(bool(calls) and _called_rightly(request, calls))
    if request.format.kind in ("json_object", "json_schema"):
        if choice.reason == "length":
            return 0.0
        try:
            value = parse_json(choice.message.content)
        except ValueError:
            return 0.0
        return float(request.format.kind == "json_schema" or isinstance(value, dict))
    return None


def has_form(request: Request) -> bool:
    """Whether the answer to it may give a signal."""
    return bool(request.tools) or request.format.kind in ("json_object", "json_schema")


def _called_rightly(request: Request, calls: Sequence[ToolCall]) -> bool:
    offered = {tool.name for tool in request.tools}
    for call in calls:
        if call.name not in offered:
            return False
        try:
            call.parsed()
        except ValueError:
            return False
    return True
