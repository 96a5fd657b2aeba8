"""Files of examples: JSON lines, each a case and what came of it; read once while a file stays the same."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pentad.errors import InvalidRequest
from pentad.json_text import parse_json
from pentad.types import ToolCall

_MOST_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LineForm:
    """How the lines of a file of examples are read."""

    what: str
    """What the file holds, e.g. `examples`."""
    wants: str
    """What a line must have, for the error."""
    read: Callable[[Any], Any]
    """A line's value as an example; raises ValueError, KeyError or TypeError for one that is none."""
    hint: str
    param: str


def example_lines(name: str, form: LineForm) -> tuple[Any, ...]:
    """The examples of a file, in order. Raises InvalidRequest, with the line at fault."""
    try:
        about = pathlib.Path(name).stat()
    except OSError as error:
        raise _wrong(name, form, error.strerror or "cannot be read") from None
    if about.st_size > _MOST_BYTES:
        raise _wrong(name, form, f"has {about.st_size} bytes, at most {_MOST_BYTES}")
    return _parsed(name, form, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=16)
def _parsed(name: str, form: LineForm, mtime_ns: int, size: int) -> tuple[Any, ...]:  # noqa: ARG001 - the key
    found = []
    for number, line in enumerate(pathlib.Path(name).read_text("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(form.read(parse_json(line)))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _wrong(name, form, f"line {number} has no {form.wants}") from None
    return tuple(found)


def _wrong(name: str, form: LineForm, why: str) -> InvalidRequest:
    return InvalidRequest(f"{form.what} {name!r}: {why}", hint=form.hint, param=form.param)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedCalls:
    """A request and the tool calls that served it."""

    request: str
    calls: tuple[ToolCall, ...]
    results: tuple[str, ...]
    """Of each call."""
    answer: str

    @property
    def tools(self) -> frozenset[str]:
        """The tools that were called."""
        return frozenset(call.name for call in self.calls)


def _solved(value: Any) -> SolvedCalls:
    calls = tuple(_call(number, call) for number, call in enumerate(value["calls"]))
    if not calls or not text_of(value, "input"):
        raise ValueError("nothing was asked or called")
    return SolvedCalls(
        request=value["input"],
        calls=calls,
        results=tuple(text_of({"result": "ok", **call}, "result") for call in value["calls"]),
        answer=text_of({"output": "Done.", **value}, "output"),
    )


def _call(number: int, value: Any) -> ToolCall:
    arguments = value.get("arguments", {})
    if not isinstance(arguments, Mapping):
        raise TypeError("arguments are an object")
    return ToolCall(
        id=f"solved{number}", name=text_of(value, "name"), arguments=json.dumps(arguments, ensure_ascii=False)
    )


def text_of(value: Any, field: str) -> str:
    """A field that is a text of some words. Raises KeyError or ValueError."""
    text = value[field]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{field} is no text")
    return text


def solved_calls(name: str, param: str) -> tuple[SolvedCalls, ...]:
    """The solved calls of a file. Raises InvalidRequest.

    Args:
        param: the option or argument that names the file.
    """
    return example_lines(name, _solved_form(param))


@functools.cache
def _solved_form(param: str) -> LineForm:
    return LineForm(
        what="solved calls",
        wants="text 'input' and list 'calls'",
        read=_solved,
        hint='give JSON lines like {"input": "Weather in Rome?", '
        '"calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}',
        param=param,
    )
