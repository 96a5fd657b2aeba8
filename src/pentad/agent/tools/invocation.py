"""One tool call: arguments checked, deadline kept, result made text and capped. Never raises for the tool."""

from __future__ import annotations

import asyncio
import datetime
import fnmatch
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pentad.agent.codec import readable
from pentad.agent.tool_events import ToolStatus
from pentad.agent.tools.base import Dated, InDoubt, Reply, Sourced, Tool, ToolContext, Truncated
from pentad.agent.tools.schema import check_arguments
from pentad.errors import Forbidden, PentadError, ToolFailed
from pentad.json_text import parse_json
from pentad.types import Decision

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a call, as it is journaled."""

    status: ToolStatus
    content: str
    cut_bytes: int = 0
    limit: str = ""
    """What bound it, if anything did."""
    source: str = ""
    """Where the result is from, where that is not the call itself."""
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRules:
    """What may not be called. Enforced at every call, whatever the model or a tool's text says."""

    deny: Sequence[str] = ()
    """Patterns of names, e.g. `files__*`."""

    def check(self, name: str) -> None:
        """Raises Forbidden unless the tool may be called."""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.deny):
            raise Forbidden(f"policy denies tool {name!r}")


def parse(tool: Tool, text: str) -> dict[str, Any]:
    """The arguments object in the model's JSON. Raises ToolFailed, worded for the model."""
    try:
        value = parse_json(text or "{}")
    except ValueError as error:
        raise ToolFailed(f"the arguments for {tool.name!r} are no JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict):
        raise ToolFailed(f"the arguments for {tool.name!r} are no JSON object")
    check_arguments(tool.name, tool.parameters, value)
    return value


async def call(
    tool: Tool, arguments: Mapping[str, Any], context: ToolContext, max_bytes: int | None = None
) -> Outcome:
    """Carries the call out within `tool.timeout_s` and the context's deadline.

    The result is cut, with a marker, at the tool's cap or at `max_bytes` where that is lower.
    """
    left_s = context.deadline_s - context.clock()
    timeout_s = min(tool.timeout_s, left_s)
    try:
        async with asyncio.timeout(None if math.isinf(timeout_s) else max(0.0, timeout_s)) as limit:
            result = await tool.call(arguments, _pausing(context, limit))
    except TimeoutError:
        return _timed_out(tool, timeout_s)
    except Forbidden as error:
        return Outcome(status="denied", content=str(error))
    except InDoubt as error:
        repeatable = tool.effects == "none"
        return Outcome(
            status="failed" if repeatable else "unknown",
            content=str(error) if repeatable else in_doubt(tool.name, str(error)),
        )
    except PentadError as error:
        return Outcome(status="failed", content=str(error))
    except Exception as error:
        # The tool is the user's code: whatever it raises is an observation for the model.
        return Outcome(status="failed", content=f"{type(error).__name__}: {str(error)[:500]}")
    if isinstance(result, Sourced):
        made = _as_outcome(tool, result.content, max_bytes)
        return replace(made, source=result.source, decisions=result.decisions)
    return _as_outcome(tool, result, max_bytes)


def _as_outcome(tool: Tool, result: Any, max_bytes: int | None) -> Outcome:
    if isinstance(result, Dated):
        result = dated_text(as_text(result.content), result.as_of_s, result.expires_s)
    most = min(tool.max_result_bytes, max_bytes or tool.max_result_bytes)
    try:
        if isinstance(result, Truncated):
            return capped(as_text(result.data), most, result.total_bytes)
        return capped(as_text(result), most)
    except (TypeError, ValueError, RecursionError) as error:
        return Outcome(status="failed", content=f"tool {tool.name!r} returned no text: {str(error)[:200]}")


def _pausing(context: ToolContext, limit: asyncio.Timeout) -> ToolContext:
    """The context with questions to a person that stop the clock of the call."""
    question = context.question
    if question is None:
        return context

    async def ask(text: str, schema: Mapping[str, Any] | None) -> Reply:
        loop, ends_s = asyncio.get_running_loop(), limit.when()
        left_s = None if ends_s is None else ends_s - loop.time()
        limit.reschedule(None)
        try:
            return await question(text, schema)
        finally:
            if left_s is not None and not limit.expired():
                limit.reschedule(loop.time() + left_s)

    return replace(context, question=ask)


def _timed_out(tool: Tool, timeout_s: float) -> Outcome:
    limit = f"timeout_s {timeout_s:g}" if timeout_s == tool.timeout_s else f"wall_s, {timeout_s:.3g} left"
    if tool.effects == "none":
        text = f"tool {tool.name!r} gave no result within {timeout_s:g} s"
        return Outcome(status="failed", content=text, limit=limit)
    doubt = in_doubt(tool.name, f"no result within {timeout_s:g} s")
    return Outcome(status="unknown", content=doubt, limit=limit)


def in_doubt(name: str, why: str) -> str:
    """What the model is told of a call that may or may not have happened."""
    return (
        f"It is unknown whether {name!r} happened ({why}). It was not repeated. Check before relying on it."
    )


def as_text(result: Any) -> str:
    """A tool's result as text. Bytes that are no UTF-8 keep their values as lone surrogates."""
    if isinstance(result, str):
        # Two surrogates side by side are one character, and JSON would store them as such.
        return _PAIR.sub(lambda m: m[0].encode("utf-16", "surrogatepass").decode("utf-16"), result)
    if isinstance(result, bytes | bytearray):
        return bytes(result).decode("utf-8", "surrogateescape")
    return json.dumps(result, ensure_ascii=False)


def dated_text(text: str, as_of_s: float, expires_s: float | None) -> str:
    """The text with the time at which it was so, and until when it may be used, as the model reads them."""
    until = "" if expires_s is None else f", valid until {_utc(expires_s)}"
    return f"{text}\n[as of {_utc(as_of_s)}{until}]"


def _utc(at_s: float) -> str:
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def capped(text: str, max_bytes: int, total_bytes: int | None = None) -> Outcome:
    """The whole text, or its beginning with a marker that says how much is missing.

    Args:
        total_bytes: the size of the whole, where `text` is only its beginning.
    """
    data = text.encode("utf-8", "surrogatepass")
    total = len(data) if total_bytes is None else total_bytes
    if max(total, len(data)) <= max_bytes:
        return Outcome(status="ok", content=text)
    end = min(max_bytes, len(data))
    while 0 < end < len(data) and data[end] & 0xC0 == 0x80:  # never inside a character
        end -= 1
    marker = f"\n[cut: {total - end} of {total} bytes left out]"
    kept = data[:end].decode("utf-8", "surrogatepass")
    limit = f"max_result_bytes {max_bytes}"
    return Outcome(status="ok", content=kept + marker, cut_bytes=total - end, limit=limit)


def shown(text: str) -> str:
    """Text as a model may read it: lone surrogates, which no tokenizer takes, become U+FFFD."""
    return str(readable(text))
