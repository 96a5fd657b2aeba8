"""A live server as `pentad serve` builds it, in a thread, for tests of models that come and go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pentad.application.config import Settings
from pentad.application.gateway import create_app, make_server
from pentad.application.services import Services
from pentad.application.wiring import build
from pentad.execution.worker.interpreters import Interpreters

START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A server that answers, and what it is built of."""

    url: str
    services: Services


@contextmanager
def serving(settings: Settings, *, worker: Sequence[str] | None = None) -> Iterator[Serving]:
    """Serves until the end; with `worker`, its command, each engine has a process of its own."""
    started = threading.Event()
    found: list[Serving] = []
    stop: list[object] = []
    failure: list[BaseException] = []

    async def run() -> None:
        workers = None if worker is None else Interpreters(worker)
        async with build(settings, workers=workers) as services:
            server = make_server(create_app(services, settings.server), settings.server)
            stop.append(server)
            task = asyncio.ensure_future(server.serve())
            while not (server.started or task.done()):  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.005)
            port = server.servers[0].sockets[0].getsockname()[1]
            found.append(Serving(url=f"http://127.0.0.1:{port}", services=services))
            started.set()
            await task

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failure.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=main, name="serving", daemon=True)
    thread.start()
    assert started.wait(START_S), "the server did not start"
    if failure:
        raise failure[0]
    try:
        yield found[0]
    finally:
        stop[0].should_exit = True  # type: ignore[attr-defined]
        thread.join(START_S)
        assert not thread.is_alive(), "the server did not stop"
