"""A live gateway on a free port, over scripted or real models, for tests with real clients."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pathlib
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette

from pentad.agent.catalogue import AgentCatalogue
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.application.gateway import GatewaySettings, create_app, make_server
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.server import GracefulServer
from pentad.application.services import Services
from pentad.execution.backend import Backend, Embedder
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend, Turn

START_S = 10.0
HELLO = [{"role": "user", "content": "Say hello"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A server that answers now."""

    url: str
    app: Starlette
    server: GracefulServer
    backend: ScriptedBackend | None = None

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.app.state.gateway
        return gateway


class HashEmbedder:
    """Unit vectors of four numbers that depend on the text alone."""

    dimensions = 4

    def embed_counted(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        return [self._one(text) for text in texts], sum(len(text.split()) for text in texts)

    def _one(self, text: str) -> list[float]:
        numbers = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:4]]
        length = sum(number * number for number in numbers) ** 0.5
        return [number / length for number in numbers]


def model_service(
    backend: Backend, *, name: str = "scripted", embedders: Mapping[str, Embedder] | None = None
) -> ModelService:
    """A service of one model."""
    return ModelService({name: backend}, embedders=embedders, router=Fixed(), default=name)


@contextmanager
def scripted(
    *turns: Turn,
    repeat: bool = False,
    agents: AgentCatalogue | Mapping[str, AgentSpec] | None = None,
    **settings: Any,
) -> Iterator[Live]:
    """A live server over a scripted model, a small embedder and, if named, these agents."""
    backend = ScriptedBackend(list(turns), repeat=repeat)
    models = model_service(backend, embedders={"vectors": HashEmbedder()})
    with tempfile.TemporaryDirectory() as folder:
        runtime = None
        if agents is not None:
            runtime = AgentRuntime(models, Journal(pathlib.Path(folder) / "journal.sqlite3"), agents=agents)
        with live(Services(models=models, agents=runtime), backend=backend, **settings) as server:
            yield server


@contextmanager
def live(services: Services, *, backend: ScriptedBackend | None = None, **settings: Any) -> Iterator[Live]:
    """Serves in a thread, on a port that the system chooses; stops at the end."""
    chosen = GatewaySettings(port=0, drain_s=settings.pop("drain_s", 2.0), **settings)
    app = create_app(services, chosen)
    server = make_server(app, chosen)
    thread = threading.Thread(target=server.run, name="gateway", daemon=True)
    thread.start()
    deadline = time.monotonic() + START_S
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server took too long to start"
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Live(url=f"http://127.0.0.1:{port}", app=app, server=server, backend=backend)
    finally:
        server.should_exit = True
        thread.join(START_S)
        assert not thread.is_alive(), "the server did not stop"


def eventually(condition: Any, *, within_s: float = 5.0) -> None:
    """Waits for the condition to hold; fails when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


def head_of(url: str, body: bytes, *, extra: str = "", length: int | None = None) -> bytes:
    """A chat request as bytes, for clients that misbehave."""
    host = url.removeprefix("http://")
    size = len(body) if length is None else length
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n{extra}\r\n"
    ).encode() + body


def chat_body(**fields: Any) -> bytes:
    """The body of a chat completion."""
    return json.dumps({"messages": HELLO, **fields}).encode()


def address(url: str) -> tuple[str, int]:
    """Host and port for a socket."""
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


async def _leave_early(url: str, after_bytes: int, fields: dict[str, Any]) -> None:
    """Opens a stream, takes about so many bytes of it and goes away without a word."""
    reader, writer = await asyncio.open_connection(*address(url))
    writer.write(head_of(url, chat_body(stream=True, **fields), extra="Connection: close\r\n"))
    await writer.drain()
    taken = 0
    while taken < after_bytes:
        piece = await reader.read(4096)
        if not piece:
            break
        taken += len(piece)
    writer.transport.abort()


async def leave_many(url: str, count: int, fields: dict[str, Any], at_once: int = 16) -> None:
    """Opens so many streams and leaves each at some point, from at once to near its end."""
    dice, gate = random.Random(0), asyncio.Semaphore(at_once)

    async def one() -> None:
        async with gate:
            await _leave_early(url, dice.choice([0, 0, 300, 1000, 3000]), fields)

    await asyncio.gather(*(one() for _ in range(count)))
