"""Event streams: idle ones are kept alive, slow ones cut, gone ones cancelled, all of them ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from pentad.application.gateway.sse import KEEP_ALIVE, EventStream, StreamWatch
from pentad.errors import BackendFailed, Overloaded, PentadError, Unavailable

Sent = list[dict[str, Any]]


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Client:
    """The ASGI side of one client: takes what is sent, when it is willing."""

    def __init__(self) -> None:
        self.sent: Sent = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.gone = asyncio.Event()
        self.aborted = False
        self.scope = {"type": "http", "state": {"abort": self._abort}}

    def _abort(self) -> None:
        self.aborted = True
        self.gone.set()

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.sent.append(message)

    async def receive(self) -> dict[str, str]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent)


class Frames:
    """Frames that come when the test lets them, and a note of how they ended."""

    def __init__(self, *items: bytes | Exception | asyncio.Event) -> None:
        self.items = items
        self.closed = False
        self.taken = 0

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for item in self.items:
                if isinstance(item, asyncio.Event):
                    await item.wait()
                elif isinstance(item, Exception):
                    raise item
                else:
                    self.taken += 1
                    yield item
        finally:
            self.closed = True


def stream_of(frames: Frames, watch: StreamWatch) -> EventStream:
    def told(error: PentadError) -> bytes:
        return f"data: {error.code}\n\n".encode()

    return EventStream(frames(), watch=watch, error_frame=told, request_id="r")


def watching(clock: Clock, keep_alive_s: float = 0.02, slow_s: float = 0.02) -> StreamWatch:
    return StreamWatch(keep_alive_s=keep_alive_s, slow_client_limit_s=slow_s, clock=clock)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the condition is plain state
            await asyncio.sleep(0.001)


def test_frames_are_sent_as_they_are_and_the_stream_ends() -> None:
    async def run() -> None:
        client, frames, watch = Client(), Frames(b"a", b"b"), watching(Clock())
        await stream_of(frames, watch)(client.scope, client.receive, client.send)
        assert client.sent[0]["status"] == 200
        headers = dict(client.sent[0]["headers"])
        assert headers[b"content-type"].startswith(b"text/event-stream")
        assert headers[b"x-accel-buffering"] == b"no"
        assert b"content-length" not in headers
        assert client.body == b"ab"
        assert client.sent[-1]["more_body"] is False
        assert frames.closed
        assert len(watch) == 0

    asyncio.run(run())


def test_an_idle_stream_gets_its_head_and_comments() -> None:
    async def run() -> None:
        clock, go_on = Clock(), asyncio.Event()
        client, frames = Client(), Frames(go_on, b"late")
        task = asyncio.create_task(
            stream_of(frames, watching(clock))(client.scope, client.receive, client.send)
        )
        await asyncio.sleep(0.05)
        assert client.sent == []
        clock.now += 1
        await until(lambda: KEEP_ALIVE in client.body)
        assert client.sent[0]["type"] == "http.response.start"
        go_on.set()
        await task
        assert client.body.endswith(b"late")

    asyncio.run(run())


def test_a_busy_stream_gets_no_comments() -> None:
    async def run() -> None:
        clock, go_on = Clock(), asyncio.Event()
        client, frames = Client(), Frames(b"a", go_on)
        task = asyncio.create_task(
            stream_of(frames, watching(clock))(client.scope, client.receive, client.send)
        )
        await asyncio.sleep(0.05)
        go_on.set()
        await task
        assert client.body == b"a"

    asyncio.run(run())


def test_a_client_that_takes_nothing_is_cut_and_its_work_cancelled() -> None:
    async def run() -> None:
        clock, client, frames = Clock(), Client(), Frames(*[b"x" * 1000] * 100)
        client.takes.clear()
        task = asyncio.create_task(
            stream_of(frames, watching(clock))(client.scope, client.receive, client.send)
        )
        await until(lambda: frames.taken == 1)
        await asyncio.sleep(0.03)
        assert not client.aborted
        assert frames.taken == 1, "nothing is made ahead of a client that does not take it"
        clock.now += 1
        await task
        assert client.aborted
        assert frames.closed

    asyncio.run(run())


def test_a_client_that_goes_away_ends_the_work() -> None:
    async def run() -> None:
        client, frames = Client(), Frames(b"a", asyncio.Event())
        task = asyncio.create_task(
            stream_of(frames, watching(Clock()))(client.scope, client.receive, client.send)
        )
        await until(lambda: client.body == b"a")
        client.gone.set()
        await task
        assert frames.closed

    asyncio.run(run())


def test_an_error_before_the_first_frame_is_raised_for_a_plain_answer() -> None:
    async def run() -> None:
        client = Client()
        with pytest.raises(Overloaded):
            await stream_of(Frames(Overloaded("full")), watching(Clock()))(
                client.scope, client.receive, client.send
            )
        assert client.sent == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "code"), [(BackendFailed("x"), b"backend_failed"), (RuntimeError("x"), b"internal_error")]
)
def test_an_error_after_it_is_an_event_and_an_ordered_end(error: Exception, code: bytes) -> None:
    async def run() -> None:
        client = Client()
        await stream_of(Frames(b"a", error), watching(Clock()))(client.scope, client.receive, client.send)
        assert client.body == b"adata: " + code + b"\n\n"
        assert client.sent[-1]["more_body"] is False

    asyncio.run(run())


def test_the_end_of_the_server_is_told_to_every_stream() -> None:
    async def run() -> None:
        watch, clients = watching(Clock()), [Client() for _ in range(3)]
        all_frames = [Frames(b"a", asyncio.Event()) for _ in clients]
        tasks = [
            asyncio.create_task(stream_of(frames, watch)(client.scope, client.receive, client.send))
            for client, frames in zip(clients, all_frames, strict=True)
        ]
        await until(lambda: all(client.body for client in clients))
        watch.end_all(Unavailable("the server is shutting down"))
        await asyncio.gather(*tasks)
        assert all(client.body == b"adata: unavailable\n\n" for client in clients)
        assert all(client.sent[-1]["more_body"] is False for client in clients)
        assert all(frames.closed for frames in all_frames)

    asyncio.run(run())
