"""Tool calls out of an endpoint's fragments, whatever it thinks an index is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pentad.errors import BackendFailed
from pentad.execution.backend import ToolCallDelta
from pentad.json_text import parse_json
from pentad.model.backends.openai_text import TextCleaner, cleaned
from pentad.model.toolcalls import call_id

MAX_CALLS = 128
"""Calls of one turn."""
MAX_NAME_CHARS = 256
"""Of a call's name and id."""


@dataclass(slots=True)
class _Call:
    index: int
    """Ours."""
    theirs: str | None
    """The id that the endpoint gave it."""
    name: str
    text: list[str] = field(default_factory=list)
    cleaner: TextCleaner = field(default_factory=TextCleaner)


class CallAssembler:
    """Joins the fragments of one choice's calls.

    Endpoints number calls from 0 or any number, give all of them index 0, or none at all, and send
    arguments as text, as an object or as null. A fragment begins a call when it names a tool and either
    its index is new, or it is told from the call there by its id, its name, or by that one's arguments
    being whole. Any other fragment goes on with the call of its index; without an index, with the last.
    """

    def __init__(self, request_id: str, choice: int) -> None:
        self._request_id = request_id
        self._choice = choice
        self._calls: list[_Call] = []
        self._at: dict[int | None, _Call] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def push(self, fragment: Any) -> ToolCallDelta:
        """The next piece of one call. Raises BackendFailed for a fragment that belongs to none."""
        function = fragment.get("function") or {}
        name, theirs = _short(function.get("name")), _short(fragment.get("id"))
        index = fragment.get("index")
        index = index if isinstance(index, int) else None
        present = self._at.get(index)
        arguments = _text(function.get("arguments"))
        begins = name is not None and (present is None or _differs(present, theirs, name))
        if begins:
            assert name is not None
            present = self._begin(index, theirs, name)
        if present is None:
            raise BackendFailed("the endpoint sent a tool call without a name", hint="try another model")
        text = present.cleaner.push(arguments)
        present.text.append(text)
        if not begins:
            return ToolCallDelta(index=present.index, choice=self._choice, arguments=text)
        return ToolCallDelta(
            index=present.index,
            choice=self._choice,
            id=self._own_id(present),
            name=name,
            arguments=text,
        )

    def _own_id(self, call: _Call) -> str:
        """The endpoint's id unless it gave none, or the same to another call."""
        taken = {other.theirs for other in self._calls if other is not call}
        if call.theirs is None or call.theirs in taken:
            return call_id(self._request_id, self._choice, call.index)
        return call.theirs

    def _begin(self, index: int | None, theirs: str | None, name: str) -> _Call:
        if len(self._calls) >= MAX_CALLS:
            raise BackendFailed(f"the endpoint sent more than {MAX_CALLS} tool calls in one turn")
        call = _Call(len(self._calls), theirs, name)
        self._calls.append(call)
        self._at[index] = self._at[None] = call
        return call


def _differs(present: _Call, theirs: str | None, name: str) -> bool:
    """Whether a fragment with this id and name is of another call than the present one."""
    if theirs is not None and present.theirs is not None:
        return theirs != present.theirs or name != present.name
    return name != present.name or _whole("".join(present.text))


def _whole(arguments: str) -> bool:
    if not arguments.rstrip().endswith("}"):
        return False
    try:
        return isinstance(parse_json(arguments), dict)
    except (ValueError, RecursionError):
        return False


def _text(arguments: Any) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _short(value: Any) -> str | None:
    """A name or id; empty counts as absent."""
    if not isinstance(value, str) or not value:
        return None
    if len(value) > MAX_NAME_CHARS:
        raise BackendFailed(f"the endpoint sent a name or id of {len(value)} characters for a tool call")
    return cleaned(value)
