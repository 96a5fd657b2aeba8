"""Intake: a request on its way in. Its body is read within shares, its place taken when it is there."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from pentad.application.gateway.load import Load

SMALL_BODY_BYTES = 64 * 2**10
"""Bodies up to this size are read without asking for memory."""


class Intake:
    """The `receive` of one request.

    A client that withholds its body holds a reader's place of its tenant, and no request's; one
    whose body is large is read on only when there is memory for all of it.

    Args:
        held: given back when the request has been answered.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        load: Load,
        tenant: str,
        held: AsyncExitStack,
        max_body_bytes: int,
    ) -> None:
        self._receive = receive
        self._load = load
        self._tenant = tenant
        self._held = held
        self._reading = ExitStack()
        self.size_bytes = 0
        """Of the body, as far as it has come."""
        self._roomy = False
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        chunked = "transfer-encoding" in headers
        # A size that is none, or beyond the limit, is refused by whoever reads the body.
        known = declared.isdigit() and len(declared) < 16 and not chunked
        self._expected_bytes = min(int(declared), max_body_bytes) if known else max_body_bytes
        self.complete = not chunked and declared == "0"
        """Whether nothing of the body is still to come."""

    def begin(self) -> None:
        """Takes the place that the request needs first. Raises Overloaded, Unavailable."""
        if self.complete:
            self._held.enter_context(self._load.slot(self._tenant))
            return
        self._load.check()
        self._reading.enter_context(self._load.readers.hold(self._tenant))
        self._held.push(self._reading)

    async def __call__(self) -> Message:
        if self.complete:
            return await self._receive()
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        self.size_bytes += len(message.get("body", b""))
        if self.size_bytes > SMALL_BODY_BYTES and not self._roomy:
            self._roomy = True
            size_bytes = max(self._expected_bytes, self.size_bytes)
            await self._held.enter_async_context(self._load.bodies.hold(self._tenant, size_bytes))
        if not message.get("more_body", False):
            self.complete = True
            self._reading.close()
            self._held.enter_context(self._load.slot(self._tenant))
        return message
