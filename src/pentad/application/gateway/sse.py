"""Server-sent events with back pressure: a slow client waits, then is cut; a gone one cancels."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pentad.application.gateway.errors import internal_error
from pentad.errors import PentadError
from pentad.types import Clock

logger = logging.getLogger("pentad.gateway")
KEEP_ALIVE = b": keep-alive\n\n"
PROGRESS_S = 2.0
"""Between two comments on what a stream waits for."""
NDJSON_HEADERS: Mapping[str, str] = {
    "content-type": "application/x-ndjson",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
"""Of lines of JSON, between which nothing else may stand."""
SSE_HEADERS: Mapping[str, str] = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


async def until_disconnected(receive: Receive) -> None:
    """Returns once the client has gone (or the response is complete)."""
    while (await receive())["type"] != "http.disconnect":
        pass


class StreamWatch:
    """One task that looks at every open stream about once a second.

    It keeps idle streams alive and cuts those whose client takes nothing, so that the streams
    themselves need no timer per token.
    """

    def __init__(self, *, keep_alive_s: float, slow_client_limit_s: float, clock: Clock) -> None:
        self.clock = clock
        self._keep_alive_s = keep_alive_s
        self._slow_s = slow_client_limit_s
        self._period_s = min(1.0, keep_alive_s / 2, slow_client_limit_s / 4)
        self._streams: set[EventStream] = set()
        self._task: asyncio.Task[None] | None = None
        self._writes: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: EventStream) -> None:
        """Looks after this stream from now on."""
        self._streams.add(stream)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="pentad-stream-watch")

    def remove(self, stream: EventStream) -> None:
        """Forgets it. The task ends with the last stream."""
        self._streams.discard(stream)

    def end_all(self, error: PentadError) -> None:
        """Ends every stream with this error event."""
        for stream in list(self._streams):
            stream.end(error)

    async def _run(self) -> None:
        while self._streams:
            await asyncio.sleep(self._period_s)
            now = self.clock()
            for stream in list(self._streams):
                if stream.blocked_s(now) > self._slow_s:
                    stream.cut()
                elif stream.idle_s(now) > min(self._keep_alive_s, PROGRESS_S if stream.waits() else math.inf):
                    write = asyncio.create_task(stream.keep_alive())
                    self._writes.add(write)
                    write.add_done_callback(self._writes.discard)


class EventStream(Response):
    """Sends frames as they come, with at most the transport's small buffer in between.

    An error before the first frame is raised, so that it becomes a plain HTTP error; a later one
    is sent as an event, then the stream closes.

    Args:
        frames: whole events as bytes.
        watch: looks after the stream while it is open.
        error_frame: an error as an event of this dialect.
        request_id: names the stream in the log.
        headers: of the answer; comments are sent in server-sent events alone.
        progress: what the stream waits for, in words; told in comments.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        watch: StreamWatch,
        error_frame: Callable[[PentadError], bytes],
        request_id: str,
        headers: Mapping[str, str] = SSE_HEADERS,
        progress: Callable[[], str | None] | None = None,
    ) -> None:
        super().__init__(headers=dict(headers))
        self._comments = headers is SSE_HEADERS
        self._progress = progress
        del self.headers["content-length"]
        self._frames = frames
        self._watch = watch
        self._error_frame = error_frame
        self._request_id = request_id
        self._lock = asyncio.Lock()
        self._started = False
        self._sending_since: float | None = None
        self._sent_s = watch.clock()
        self._pump: asyncio.Task[None] | None = None
        self._abort: Callable[[], None] | None = None
        self._end: PentadError | None = None
        self._was_cut = False
        self._send: Send | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._abort = scope.get("state", {}).get("abort")
        self._send = send
        self._pump = asyncio.create_task(self._run())
        gone = asyncio.create_task(until_disconnected(receive))
        self._watch.add(self)
        try:
            await asyncio.wait({self._pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            if self._was_cut:
                await asyncio.wait({gone}, timeout=1.0)
        finally:
            self._watch.remove(self)
            gone.cancel()
            self._pump.cancel()
            await asyncio.gather(self._pump, gone, return_exceptions=True)
        if not self._pump.cancelled():
            self._pump.result()

    def blocked_s(self, now: float) -> float:
        """How long the client has taken nothing while something waits for it."""
        return 0.0 if self._sending_since is None else now - self._sending_since

    def idle_s(self, now: float) -> float:
        """How long there has been nothing to say."""
        return 0.0 if self._sending_since is not None else now - self._sent_s

    def waits(self) -> bool:
        """Whether it waits for something that a comment can tell."""
        return self._comments and self._progress is not None and self._progress() is not None

    async def keep_alive(self) -> None:
        """Sends a comment, and the head first if there was no frame yet."""
        if not self._comments or self._pump is None or self._pump.done():
            return
        told = None if self._progress is None else self._progress()
        await self._write(KEEP_ALIVE if told is None else b": " + told.encode() + b"\n\n")

    def cut(self) -> None:
        """Drops the connection at once; what waits for the client is thrown away."""
        logger.warning(
            "request %s: the client took nothing for too long; its stream was cut", self._request_id
        )
        self._was_cut = True
        if self._abort is not None:
            self._abort()
        if self._pump is not None:
            self._pump.cancel()

    def end(self, error: PentadError) -> None:
        """Stops the work and says why."""
        self._end = error
        if self._pump is not None:
            self._pump.cancel()

    async def _run(self) -> None:
        try:
            async with aclosing(self._frames) as frames:
                async for frame in frames:
                    await self._write(frame)
        except asyncio.CancelledError:
            if self._end is None:
                raise
            await self._fail(self._end)
        except PentadError as error:
            if self._started:
                logger.warning("request %s failed while streaming: %s", self._request_id, error)
            await self._fail(error)
        except Exception:
            if not self._started:
                raise
            logger.exception("request %s failed while streaming", self._request_id)
            await self._fail(internal_error(self._request_id))
        await self._finish()

    async def _fail(self, error: PentadError) -> None:
        if not self._started:
            raise error
        await self._write(self._error_frame(error))

    async def _write(self, frame: bytes) -> None:
        assert self._send is not None
        async with self._lock:
            self._sending_since = self._watch.clock()
            if not self._started:
                self._started = True
                await self._send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send({"type": "http.response.body", "body": frame, "more_body": True})
            self._sending_since = None
            self._sent_s = self._watch.clock()

    async def _finish(self) -> None:
        assert self._send is not None
        async with self._lock:
            if not self._started:
                self._started = True
                await self._send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
