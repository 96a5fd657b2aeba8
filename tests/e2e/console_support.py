"""What the console's browser tests share: servers with agents, a line that can be cut, and axe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2
from browser import Browser

from gateway_support import Live, address, live, model_service
from pentad.agent.catalogue import AgentCatalogue
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.application.services import Services
from pentad.choice import Choice
from pentad.testing.backends import ScriptedBackend, Turn
from pentad.types import ToolCall

AXE = pathlib.Path(__file__).parent.parent / "vendor" / "axe-core" / "axe.min.js"
FREE = Choice(name="react", options={"max_plan": 0})
"""ReAct without a plan: the script is then exactly the steps."""
HELPER = AgentSpec(name="helper", description="Answers at once.")
ASKING = AgentSpec(name="asking", tools=("calculator",), ask=("calculator",), planner=FREE)
CALCULATION = ToolCall(id="c1", name="calculator", arguments='{"expression": "6*7"}')
HOSTILE = (
    "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
    "![p](http://127.0.0.1:9/leak.png) [click](javascript:window.hacked=1) "
    "[bank](https://evil.example/steal?q=secret) \u202egpj.exe \x1b[31mred <b>bold</b>"
)


@contextmanager
def with_agents(
    folder: pathlib.Path, agents: list[AgentSpec], *turns: Turn, files: Sequence[str] = (), **settings: Any
) -> Iterator[Live]:
    """A server with these agents, and those of the files, over a scripted model."""
    backend = ScriptedBackend(list(turns))
    models = model_service(backend)
    known = AgentCatalogue(built_in={agent.name: agent for agent in agents}, patterns=files)
    runtime = AgentRuntime(models, Journal(folder / "journal.sqlite3"), agents=known)
    try:
        with live(Services(models=models, agents=runtime), backend=backend, **settings) as server:
            yield server
    finally:
        asyncio.run(runtime.close())


def start(server: Live, agent: str, goal: str) -> str:
    """The id of a run that was started over HTTP."""
    answer = httpx2.post(f"{server.url}/v1/runs", json={"agent": agent, "goal": goal})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def send(window: Browser, text: str) -> None:
    """Types a message into the chat and sends it."""
    window.type("#prompt", text)
    window.click("#send")


def violations(window: Browser) -> list[str]:
    """What axe finds wrong with the page as it is now, each with the elements."""
    if not window.script("return 'axe' in window"):
        window.script(AXE.read_text(encoding="utf-8"))
    found = window.script(
        "return axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify("
        "r.violations.map(v => `${v.id}: ${v.help}: ${v.nodes.map(n => n.html.slice(0, 160)).join(' | ')}`)))"
    )
    return list(json.loads(found))


class Line:
    """A TCP relay to a server that can be cut, and remembers the heads of the requests."""

    def __init__(self, target: str) -> None:
        self._target = address(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._whole = True
        self.heads: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Breaks every connection and takes no new one until `mend`."""
        self._whole = False
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self._whole:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._open += [near, far]
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asks:
                    self.heads.append(data.decode("latin-1").lower())
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def line(server: Live) -> Iterator[Line]:
    """A line to the server, cut at the end."""
    made = Line(server.url)
    try:
        yield made
    finally:
        made.close()
