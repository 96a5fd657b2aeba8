"""Clients that misbehave: slow, gone, too many, too big, never done. And the end of the server."""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress

import httpx2
import pytest

import model_fixtures as make
from chat_support import tiny_files
from gateway_support import (
    Live,
    address,
    chat_body,
    eventually,
    head_of,
    leave_many,
    live,
    model_service,
    scripted,
)
from pentad.application.services import Services
from pentad.execution.backend import ChoiceDone, Delta, StreamDone, TextDelta
from pentad.execution.engine import Engine
from pentad.execution.loop import EngineLoop
from pentad.execution.scheduling import EngineLimits
from pentad.model.backends.engine import EngineBackend
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.backends import ScriptedBackend
from pentad.testing.runners import ToyRunner
from pentad.types import Request, Usage


@contextmanager
def toy_engine(**limits: int) -> Iterator[tuple[Live, EngineBackend, Engine]]:
    """A live server over our own engine, whose books are checked after every step."""
    runner = ToyRunner(vocab_size=make.VOCAB, num_blocks=512, context_length=1024)
    engine = Engine(runner, Sarathi(), limits=EngineLimits(**limits), check_invariants=True)
    backend = EngineBackend(tiny_files(), EngineLoop(engine), drain_s=0.0)
    with live(Services(models=model_service(backend, name="toy"))) as server:
        yield server, backend, engine
    asyncio.run(backend.close())


# F9


def test_after_1000_streams_left_early_no_block_is_held_and_the_next_answer_is_right() -> None:
    # So long that none ends by itself before its client has left, however fast the machine.
    fields = {"max_tokens": 900, "ignore_eos": True, "temperature": 0}
    with toy_engine(max_sequences=8, max_waiting=64) as (server, backend, engine):

        def answer() -> str:
            response = httpx2.post(f"{server.url}/v1/chat/completions", content=chat_body(**fields))
            assert response.status_code == 200, response.text
            content: str = response.json()["choices"][0]["message"]["content"]
            return content

        before = answer()
        baseline = backend.stats()["kv_blocks_held"]
        asyncio.run(leave_many(server.url, 1000, fields))
        eventually(lambda: not engine.has_work, within_s=10)
        stats = backend.stats()
        assert stats["kv_blocks_held"] == baseline == 0
        assert stats["requests_cancelled_total"] > 500
        assert backend.check() is None
        engine.check_integrity()
        eventually(lambda: server.gateway.load.active == 0)
        assert len(server.gateway.watch) == 0
        assert answer() == before


def test_plain_requests_left_early_are_cancelled_too() -> None:
    never = asyncio.Event()
    with scripted(["a", never], repeat=True) as server:
        assert server.backend is not None
        for count in range(1, 6):
            with socket.create_connection(address(server.url)) as client:
                client.sendall(head_of(server.url, chat_body()))
                eventually(lambda: server.backend is not None and len(server.backend.requests) == count)  # noqa: B023
            eventually(lambda: server.backend is not None and server.backend.closed_early == count)  # noqa: B023
        eventually(lambda: server.gateway.load.active == 0)


# F8


class Flood(ScriptedBackend):
    """Streams a kilobyte at a time, as fast as it is taken, and counts the kilobytes."""

    def __init__(self, kilobytes: int) -> None:
        super().__init__([])
        self.kilobytes = kilobytes
        self.made: dict[str, int] = {}

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        self.made[request.id] = 0
        try:
            for _ in range(self.kilobytes):
                await asyncio.sleep(0)
                self.made[request.id] += 1
                yield TextDelta(text="x" * 1024)
            yield ChoiceDone(reason="stop")
            yield StreamDone(usage=Usage())
        except GeneratorExit:
            self.closed_early += 1
            raise


def test_100_clients_that_take_nothing_hold_little_and_are_cut_while_others_go_on() -> None:
    backend, services_of = Flood(kilobytes=4096), model_service
    services = Services(models=services_of(backend))
    with live(services, slow_client_limit_s=1.0, send_buffer_bytes=16_384) as server:
        clients = []
        for _ in range(100):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(address(server.url))
            client.sendall(head_of(server.url, chat_body(stream=True)))
            clients.append(client)
        eventually(lambda: len(backend.made) == 100)
        quick = httpx2.post(f"{server.url}/v1/chat/completions", content=chat_body(stream=True), timeout=30)
        assert quick.text.endswith("data: [DONE]\n\n")
        assert len(quick.content) > 4096 * 1024
        slow = sorted(backend.made.values())[:100]
        assert slow[-1] <= 512, "a client that takes nothing gets half a megabyte at the most"
        eventually(lambda: server.gateway.load.active == 0, within_s=10)
        assert sorted(backend.made.values())[:100] == slow
        for client in clients:
            client.close()


# F16


def test_1000_requests_at_once_are_answered_or_told_to_come_back() -> None:
    fields = {"max_tokens": 4, "ignore_eos": True}

    async def one(url: str) -> tuple[int, bool]:
        reader, writer = await asyncio.open_connection(*address(url))
        writer.write(head_of(url, chat_body(**fields), extra="Connection: close\r\n"))
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        return int(answer.split()[1]), b"retry-after" in answer.lower()

    async def herd(url: str) -> list[tuple[int, bool]]:
        return await asyncio.gather(*(one(url) for _ in range(1000)))

    with toy_engine(max_sequences=8, max_waiting=32) as (server, backend, engine):
        outcomes = asyncio.run(herd(server.url))
        statuses = [status for status, _ in outcomes]
        assert set(statuses) <= {200, 429, 503}
        assert statuses.count(200) >= 32, "as many as may wait are answered"
        assert all(again for status, again in outcomes if status != 200)
        eventually(lambda: not engine.has_work and server.gateway.load.active == 0)
        engine.check_integrity()
        assert backend.stats()["kv_blocks_held"] == 0
        after = httpx2.post(f"{server.url}/v1/chat/completions", content=chat_body(**fields))
        assert after.status_code == 200


def test_idle_connections_make_room_for_whoever_asks_for_something() -> None:
    with scripted(["a"], repeat=True, max_connections=10) as server:
        held = [socket.create_connection(address(server.url)) for _ in range(10)]
        eventually(lambda: len(server.server.server_state.connections) == 10)
        for _ in range(20):
            assert httpx2.get(f"{server.url}/livez").status_code == 200
        held += [socket.create_connection(address(server.url)) for _ in range(20)]
        held[0].settimeout(5)
        with suppress(ConnectionResetError):
            assert held[0].recv(1) == b"", "the oldest idle one had to go"
        eventually(lambda: len(server.server.server_state.connections) <= 10)
        for client in held:
            client.close()


def test_connections_at_work_are_never_closed_for_a_new_one() -> None:
    gate = asyncio.Event()
    with scripted(["a", gate, "b"], repeat=True, max_connections=2) as server:
        asked = head_of(server.url, chat_body(stream=True))
        busy = [socket.create_connection(address(server.url)) for _ in range(2)]
        for client in busy:
            client.settimeout(5)
            client.sendall(asked)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        with socket.create_connection(address(server.url)) as extra:
            extra.settimeout(5)
            with suppress(ConnectionResetError):
                assert extra.recv(1) == b""
        assert len(server.server.server_state.connections) == 2
        for client in busy:
            client.close()


# A6


def test_a_head_that_never_ends_is_closed() -> None:
    with scripted(["a"], header_timeout_s=0.3) as server:
        with socket.create_connection(address(server.url)) as client:
            client.settimeout(5)
            started_s = time.monotonic()
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127")
            assert client.recv(100) == b""
            assert time.monotonic() - started_s < 3
        with httpx2.Client(base_url=server.url) as client:
            assert client.get("/livez").status_code == 200
            time.sleep(0.5)
            assert client.get("/livez").status_code == 200, "an idle connection between requests is kept"


def test_a_second_head_that_never_ends_is_closed() -> None:
    with (
        scripted(["a"], header_timeout_s=0.3) as server,
        socket.create_connection(address(server.url)) as client,
    ):
        client.settimeout(5)
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /livez HT")
        while client.recv(4096):
            pass


def test_a_body_that_never_ends_is_408() -> None:
    with (
        scripted(["a"], body_timeout_s=0.3) as server,
        socket.create_connection(address(server.url)) as client,
    ):
        client.settimeout(5)
        client.sendall(head_of(server.url, b'{"messages":', length=1000))
        answer = b""
        while piece := client.recv(4096):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer.lower()
        assert b"request_timeout" in answer


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_over_the_limit_is_cut_and_told_so(chunked: bool) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b" " * (1 << 16)

    with scripted(["a"], max_body_bytes=1 << 20) as server:
        headers = {} if chunked else {"content-length": str(1 << 30)}
        try:
            response = httpx2.post(
                f"{server.url}/v1/chat/completions", content=endless(), headers=headers, timeout=20
            )
        except httpx2.WriteError:
            response = None  # the kernel may report the closed connection before the answer
        assert response is None or response.status_code == 413
        assert sent < 64 << 20
        eventually(lambda: server.gateway.load.active == 0)


def test_a_body_that_is_a_little_too_big_gets_its_413() -> None:
    with scripted(["a"], max_body_bytes=1000) as server:
        for _ in range(20):
            response = httpx2.post(f"{server.url}/v1/chat/completions", content=b" " * 500_000)
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "too_large"


# Drain

SERVER = """
import asyncio, json, sys
from gateway_support import model_service
from pentad.application.gateway import GatewaySettings, create_app, make_server
from pentad.application.services import Services
from pentad.testing.backends import ScriptedBackend

class Slow(ScriptedBackend):
    async def _play(self, request, items):
        async for delta in super()._play(request, items):
            await asyncio.sleep(0.2)
            yield delta

async def main():
    settings = GatewaySettings(port=0, drain_s=float(sys.argv[1]))
    words = [f"w{i} " for i in range(int(sys.argv[2]))]
    services = Services(models=model_service(Slow([words], repeat=True)))
    server = make_server(create_app(services, settings), settings)
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving

asyncio.run(main())
"""


@contextmanager
def process(drain_s: float, words: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    folder = str(pathlib.Path(__file__).parent.parent)
    code = f"import sys; sys.path.insert(0, {folder!r})\n{textwrap.dedent(SERVER)}"
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(drain_s), str(words)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        yield started, f"http://127.0.0.1:{started.stdout.readline().strip()}"
    finally:
        started.kill()
        started.wait()
        assert started.stdout is not None
        started.stdout.close()


def _take(url: str, into: list[str]) -> threading.Thread:
    def run() -> None:
        body = chat_body(stream=True)
        with httpx2.stream("POST", f"{url}/v1/chat/completions", content=body, timeout=30) as response:
            into.extend(response.iter_lines())

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_sigterm_lets_streams_finish_refuses_new_work_and_exits_0() -> None:
    lines: list[str] = []
    with process(drain_s=20, words=10) as (server, url):
        thread = _take(url, lines)
        with httpx2.Client(base_url=url) as client:
            eventually(lambda: client.get("/readyz").status_code == 200)
            eventually(lambda: "pentad_http" in client.get("/metrics").text)
            time.sleep(0.6)
            server.send_signal(signal.SIGTERM)
            eventually(lambda: httpx2.get(f"{url}/readyz").status_code == 503)
            refused = httpx2.post(f"{url}/v1/chat/completions", content=chat_body())
            assert refused.status_code == 503
            assert "retry-after" in refused.headers
        thread.join(20)
        assert lines[-2:] == ["data: [DONE]", ""]
        assert server.wait(10) == 0


def test_answers_longer_than_the_drain_end_with_an_error() -> None:
    lines: list[str] = []
    plain: list[httpx2.Response] = []
    with process(drain_s=0.5, words=100) as (server, url):
        thread = _take(url, lines)
        waiting = threading.Thread(
            target=lambda: plain.append(
                httpx2.post(f"{url}/v1/chat/completions", content=chat_body(), timeout=30)
            )
        )
        waiting.start()
        time.sleep(1.0)
        server.send_signal(signal.SIGTERM)
        thread.join(20)
        waiting.join(20)
        assert plain[0].status_code == 503
        assert "retry-after" in plain[0].headers
        assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "unavailable"
        assert server.wait(10) == 0


def test_a_target_in_absolute_form_is_answered_and_names_the_host() -> None:
    with scripted(["hello"]) as live:
        for host, status in ((live.url.removeprefix("http://"), b"200"), ("evil.example", b"403")):
            with socket.create_connection(address(live.url)) as client:
                client.sendall(f"GET http://{host}/v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                assert client.recv(4096).split(b" ", 2)[1] == status
