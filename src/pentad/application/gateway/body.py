"""Request bodies: read within limits, decoded into Structs, told apart from what nobody reads."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Generic, TypeVar

import msgspec
from starlette.requests import Request as HttpRequest

from pentad.application.gateway.errors import RequestTimeout
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.fields import unread
from pentad.application.gateway.settings import GatewaySettings
from pentad.application.gateway.structure import check_structure
from pentad.errors import InvalidRequest, TooLarge
from pentad.model.workers import in_thread

MAX_DEPTH = 64
"""Nesting that free-form values (tool schemas, metadata) may have."""
MAX_NODES = 20_000
"""Values that one free-form value may hold."""
MAX_QUOTE = 200
"""Characters of the client's own text that an error repeats."""

T = TypeVar("T", bound=msgspec.Struct)
_PATH = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)


async def read_body(http: HttpRequest, settings: GatewaySettings) -> bytes:
    """The whole body, identity-coded.

    Raises:
        TooLarge: as soon as the declared or received size passes the limit.
        RequestTimeout: the body did not arrive in time.
    """
    limit = settings.max_body_bytes
    coding = http.headers.get("content-encoding", "identity").lower()
    if coding != "identity":
        raise InvalidRequest(
            f"content-encoding {coding[:40]!r} is not read", hint="send the body uncompressed", param="body"
        )
    declared = http.headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:19]) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for piece in http.stream():
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                pieces.append(piece)
    except TimeoutError:
        raise RequestTimeout(
            f"the body did not arrive within {settings.body_timeout_s:g} s; {size} bytes came", param="body"
        ) from None
    return b"".join(pieces)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {limit} bytes", hint="send less, or raise --max-body-bytes", param="body"
    )


class Body(Generic[T]):
    """Reads bodies of one Struct type; made once per route."""

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind

    async def read(self, http: HttpRequest, settings: GatewaySettings) -> T:
        """The body of this request; fields that the Struct lacks are noted on the exchange."""
        raw = await read_body(http, settings)
        exchange_of(http).body_bytes = len(raw)
        # A large body costs tens of milliseconds, which others need not wait for.
        value, unknown = await in_thread(self._counted, raw, chars=len(raw), small_inline=True)
        exchange_of(http).ignored.extend(unknown)
        return value

    def _counted(self, raw: bytes) -> tuple[T, list[str]]:
        check_structure(raw)
        return self.decode(raw)

    def decode(self, raw: bytes) -> tuple[T, list[str]]:
        """The Struct, and the fields that it lacks. Raises InvalidRequest for anything but a valid one."""
        try:
            # Read whole first: a Struct's own decoder skips what it does not know without looking at its
            # text. The Struct then shares the texts.
            value = msgspec.json.decode(raw)
            return msgspec.convert(value, self.kind, str_keys=True), unread(value, self.kind)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from None
        except RecursionError:
            raise InvalidRequest("the body is nested too deeply", param="body") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InvalidRequest(
                "the body is not valid JSON", hint="send one JSON object in UTF-8", param="body"
            ) from None


def _invalid(text: str) -> InvalidRequest:
    match = _PATH.match(text)
    what, path = (match["what"], match["path"]) if match else (text, None)
    what = what if len(what) <= MAX_QUOTE else f"{what[:MAX_QUOTE]}..."
    where = (path or "").removeprefix("$").removeprefix(".")
    if not where:
        missing = re.search(r"required field `([^`]+)`", what)
        return InvalidRequest(f"the body is invalid: {what}", param=missing[1] if missing else "body")
    hint = "what is accepted is in /openapi.json" if "Invalid" in what else None
    return InvalidRequest(f"{where}: {what}", hint=hint, param=where)


def check_free_form(value: Any, param: str) -> None:
    """Bounds what clients may nest where any JSON is allowed. Iterative, so depth cannot hurt it."""
    level, nodes = [value], 0
    for depth in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict | list):
                nodes += len(item)
                if nodes > MAX_NODES:
                    raise InvalidRequest(f"{param} holds more than {MAX_NODES} values", param=param)
                inner.extend(item.values() if isinstance(item, dict) else item)
        if not inner:
            return
        level = inner
        if depth == MAX_DEPTH:
            break
    raise InvalidRequest(f"{param} is nested deeper than {MAX_DEPTH} levels", param=param)
