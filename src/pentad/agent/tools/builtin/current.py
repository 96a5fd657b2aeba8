"""`current`: what is so now, from a file or a server, with the time at which it was so."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import pathlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from pentad.agent.tools.base import Dated, Tool, ToolContext, ToolServices
from pentad.errors import InvalidRequest, ToolFailed
from pentad.json_text import parse_json
from pentad.model.relevance import shared_words

_TOPIC = {
    "type": "object",
    "properties": {"topic": {"type": "string", "minLength": 1, "description": "What is asked about"}},
    "required": ["topic"],
    "additionalProperties": False,
}
_MAX_AGE = re.compile(r"\bmax-age=(\d{1,9})")
_NAMED = 20
_MOST_BYTES = 1 << 20


def build(
    _: ToolServices,
    *,
    source: str = "",
    name: str = "current",
    about: str = "Looks up what is so now: news, prices, the weather.",
    max_bytes: int = 16_384,
    timeout_s: float = 20.0,
) -> Tool:
    """A tool that looks up a topic in a source of current values.

    A file is JSON, read anew at each call: `{"price of tea": {"value": "3 euros", "as_of": "2026-11-30
    12:00", "expires": "2026-11-30 13:00"}}`; times are UTC and may be left out. A server is asked at a URL
    with `{topic}` in it; its `Date`, `Age`, `Cache-Control: max-age` and `Expires` say how long it holds.

    Args:
        source: the file, or the URL.
        name: as the model sees the tool.
        about: what the model is told of it.
        max_bytes: of a value; more is cut with a mark.
        timeout_s: for one look.

    Raises InvalidRequest without a source, or for a URL without `{topic}`.
    """
    remote = urlsplit(source).scheme in ("http", "https")
    if not source or (remote and "{topic}" not in source):
        raise InvalidRequest(
            f"the source of {name!r} is {source!r:.200}",
            hint="give tool_options.current.source: a JSON file, or a URL with {topic} in it",
            param="tool_options.current.source",
        )

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> Dated:
        topic = arguments["topic"]
        if remote:
            return await _fetched(source.replace("{topic}", quote(topic, safe="")), context)
        return _found(await asyncio.to_thread(_entries, source), topic, context)

    return Tool(
        name=name,
        description=about,
        parameters=_TOPIC,
        call=call,
        effects="none",
        timeout_s=timeout_s,
        max_result_bytes=max_bytes,
    )


def _entries(source: str) -> Mapping[str, Any]:
    path = pathlib.Path(source).expanduser()
    try:
        data = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else b""
        found = parse_json(data.decode("utf-8", "replace"))
    except (OSError, ValueError) as error:
        raise ToolFailed(f"the source cannot be read: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise ToolFailed("the source is no JSON object of topics")
    return found


def _found(entries: Mapping[str, Any], topic: str, context: ToolContext) -> Dated:
    names = list(entries)
    scores = shared_words(topic, names)
    best = max(range(len(names)), key=lambda place: (scores[place], -place), default=None)
    if best is None or scores[best] <= 0:
        known = ", ".join(names[:_NAMED])
        raise ToolFailed(f"nothing is known of {topic!r:.100}; topics: {known or 'none'}")
    entry = entries[names[best]]
    whole = entry if isinstance(entry, dict) else {"value": entry}
    as_of_s, expires_s = _time(whole.get("as_of")), _time(whole.get("expires"))
    if expires_s is not None and expires_s <= context.wall():
        raise ToolFailed(f"what is known of {names[best]!r} is no longer valid, and nothing newer is there")
    content = f"{names[best]}: {whole.get('value')}"
    return Dated(content=content, as_of_s=context.wall() if as_of_s is None else as_of_s, expires_s=expires_s)


def _time(written: Any) -> float | None:
    if written is None:
        return None
    try:
        at = datetime.datetime.fromisoformat(str(written))
    except ValueError:
        raise ToolFailed(f"the source has a time that is none: {written!r:.60}") from None
    return (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()


async def _fetched(url: str, context: ToolContext) -> Dated:
    import httpx2 as httpx

    began_s = context.wall()
    left_s = max(0.1, context.deadline_s - context.clock())
    try:
        async with (
            httpx.AsyncClient(timeout=left_s, follow_redirects=False) as http,
            http.stream("GET", url) as said,
        ):
            data = b""
            async for part in said.aiter_bytes():
                data += part
                if len(data) > _MOST_BYTES:
                    raise ToolFailed(f"the source sent more than {_MOST_BYTES} bytes")
    except httpx.HTTPError as error:
        raise ToolFailed(f"the source cannot be asked: {type(error).__name__}") from None
    if said.status_code != 200:
        raise ToolFailed(f"the source answered with status {said.status_code}")
    age = said.headers.get("age", "0")
    as_of_s = began_s - (int(age) if age.isdigit() else 0)
    content = data.decode("utf-8", "replace")
    return Dated(content=content, as_of_s=as_of_s, expires_s=_expires(said.headers, as_of_s))


def _expires(headers: Mapping[str, str], as_of_s: float) -> float | None:
    """Until when an HTTP answer holds; None where it does not say. The server's clock is not trusted."""
    control = headers.get("cache-control", "").lower()
    if "no-store" in control or "no-cache" in control:
        return as_of_s
    if found := _MAX_AGE.search(control):
        return as_of_s + int(found[1])
    dates = [_http_date(headers.get(name, "")) for name in ("expires", "date")]
    return None if None in dates else as_of_s + max(0.0, dates[0] - dates[1])  # type: ignore[operator]


def _http_date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return None
