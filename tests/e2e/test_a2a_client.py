"""The tool `a2a`: an agent gives a task to one of another server, once, and passes on what that asks."""

from __future__ import annotations

import asyncio
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import httpx2
import pytest

from agent_support import call, context, harness, run, spec
from gateway_support import Live, eventually, scripted
from pentad.agent.tool_events import ApprovalAsked
from pentad.agent.tools.base import Tool, ToolServices
from pentad.agent.tools.builtin.a2a import build
from pentad.agent.tools.functions import tool
from pentad.agent.tools.invocation import Outcome, parse
from pentad.agent.tools.invocation import call as carry_out
from pentad.errors import InvalidRequest
from pentad.testing.agents import scripted_models

SUM = call("calculator", expression="2 + 3")


def made(url: str, **options: Any) -> Tool:
    models, _ = scripted_models([])
    return build(ToolServices(models=models), url=url, **options)


async def use(remote: Tool, task: str = "add", **fields: Any) -> Outcome:
    return await carry_out(remote, parse(remote, json.dumps({"task": task})), context(**fields))


def runs(server: Live) -> Any:
    runtime = server.gateway.services.agents
    assert runtime is not None
    return runtime


@pytest.mark.row("tool-a2a", "mechanism")
def test_a_task_is_given_to_another_server_and_its_answer_comes_back(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        agents = {"helper": spec(name="helper", tools=("calculator",))}
        with scripted([SUM], ["It is 5."], agents=agents) as server:
            remote = made(f"{server.url}/a2a/helper")
            turns = [[call("ask_agent", task="add two and three")], ["The other said 5."]]
            async with harness(tmp_path, turns, [remote]) as h:
                state = await h.work(spec(tools=("ask_agent",)))
                assert state.answer == "The other said 5."
                assert state.exchanges[0].results[0].content == "It is 5."
            (row,) = runs(server).list()
            assert row.goal == "add two and three"

    run(scenario(), 60)


def test_a_call_that_is_repeated_is_carried_out_once() -> None:
    async def scenario() -> None:
        with scripted(["First."], ["Second."], agents={"helper": spec(name="helper")}) as server:
            remote = made(f"{server.url}/a2a/helper")
            first = await use(remote)
            again = await use(remote)
            other = await use(remote, key="run:2:0")
            assert [one.content for one in (first, again, other)] == ["First.", "First.", "Second."]
            assert len(runs(server).list()) == 2

    run(scenario(), 60)


def test_what_the_other_agent_asks_is_asked_here(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        agents = {"helper": spec(name="helper", tools=("calculator",), ask=("*",))}
        with scripted([SUM], ["It is 5."], agents=agents) as server:
            remote = made(f"{server.url}/a2a/helper")
            turns = [[call("ask_agent", task="add")], ["Done."]]
            async with harness(tmp_path, turns, [remote]) as h:
                run_id = await h.runtime.start(spec(tools=("ask_agent",)), "go")
                async for record in h.runtime.events(run_id):
                    if isinstance(record.event, ApprovalAsked):
                        assert record.event.message.startswith("May calculator be called with")
                        await h.runtime.answer(
                            run_id, record.event.approval_id, approved=True, content={"approve": True}
                        )
                assert h.runtime.show(run_id).exchanges[0].results[0].content == "It is 5."

    run(scenario(), 60)


def test_a_call_that_is_given_up_cancels_the_task_there() -> None:
    @tool(effects="none")
    async def wait_long() -> str:
        """Waits."""
        await asyncio.sleep(60)
        return "late"

    async def scenario() -> None:
        agents = {"helper": spec(name="helper", tools=("wait_long",))}
        with scripted([call("wait_long")], agents=agents) as server:
            runs(server).toolbox.add(wait_long)
            work = asyncio.ensure_future(use(made(f"{server.url}/a2a/helper")))
            await asyncio.to_thread(eventually, lambda: runs(server).list(), within_s=20)
            await asyncio.sleep(0.2)
            work.cancel()
            await asyncio.wait([work])
            await asyncio.to_thread(
                eventually, lambda: runs(server).list()[0].status == "cancelled", within_s=20
            )

    run(scenario(), 60)


@contextmanager
def card_of_another_host() -> Iterator[tuple[str, list[str]]]:
    """A server whose card sends callers to a listener elsewhere; the paths that either was asked for."""
    heard: list[str] = []

    class Cards(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            url = f"http://localhost:{self.server.server_address[1]}/a2a"
            interface = {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
            card = {"name": "a", "description": "a", "version": "1", "supportedInterfaces": [interface]}
            card |= {"capabilities": {}, "skills": [], "defaultInputModes": [], "defaultOutputModes": []}
            body = json.dumps(card).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Cards) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", heard
        server.shutdown()
        thread.join(5)


def test_a_card_cannot_send_the_call_elsewhere() -> None:
    async def scenario() -> None:
        with card_of_another_host() as (url, heard):
            outcome = await use(made(url))
            assert outcome.status == "failed"
            assert "names only other servers" in outcome.content
            assert heard == ["/.well-known/agent-card.json"]

    run(scenario(), 60)


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(InvalidRequest, match=r"tool_options\.a2a\.url"):
        made("")
    with pytest.raises(InvalidRequest, match="'NO_SUCH_KEY' is not set"):
        made("http://a.example", key_env="NO_SUCH_KEY")
    outcome = run(use(made("http://127.0.0.1:9")), 60)
    assert outcome.status == "failed"
    assert "shows no card" in outcome.content


_OTHER = """
import sys, time
from gateway_support import scripted
from agent_support import spec
with scripted(["It is done."], repeat=True, agents={"helper": spec(name="helper")}) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.row("tool-a2a", "effect")
def test_two_processes_exchange_tasks_with_a_median_overhead_below_20_ms() -> None:
    """Overhead: a task over A2A less the same run over Pentad's own route, medians of 30."""
    here = pathlib.Path(__file__).parent
    path = f"{here}:{here.parent}"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}.split(':')\n{_OTHER}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()

        async def scenario() -> float:
            remote, took, plain = made(f"{url}/a2a/helper"), [], []
            async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
                for number in range(30):
                    begun = time.perf_counter()
                    outcome = await use(remote, key=f"run:{number}:0")
                    took.append(time.perf_counter() - begun)
                    assert outcome.content == "It is done."
                    begun = time.perf_counter()
                    run_id = (await http.post("/v1/runs", json={"agent": "helper", "goal": "a"})).json()["id"]
                    async with http.stream("GET", f"/v1/runs/{run_id}/events") as events:
                        async for _ in events.aiter_lines():
                            pass
                    plain.append(time.perf_counter() - begun)
            return sorted(took)[15] - sorted(plain)[15]

        over_s = run(scenario(), 120)
        print(f"A2A adds {over_s * 1000:.1f} ms to a run, median of 30")
        assert over_s < 0.02
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(20)
