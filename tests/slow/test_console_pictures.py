"""Pictures of every page of the console, for a person to look at; `scripts/screenshots` runs this."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest
from browser import Browser, browser

from gateway_support import Live, eventually, live, scripted
from pentad.agent.journal import Journal
from pentad.agent.loading import load_agent
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.application.services import Services
from pentad.choice import Choice
from pentad.errors import BackendFailed
from pentad.model.loading import open_model
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.types import ToolCall

pytestmark = pytest.mark.slow

MODEL = "smollm2-135m"
SIZES = {"wide": (1400, 900), "phone": (390, 844)}
TALK = (
    "Here is a small function:\n\n```python\ndef area(r):\n    return 3.14159 * r ** 2\n```\n\n"
    "It is **exact enough** for:\n\n1. gardens\n2. pizzas\n\n"
    "| radius | area |\n|---|---|\n| 1 | 3.14 |\n| 2 | 12.57 |\n\n"
    "See [the formula](https://example.com/circle) or ![a circle](https://example.com/circle.png).\n"
)
CALL = ToolCall(id="c1", name="calculator", arguments='{"expression": "1200 * 0.19"}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A server with runs in every state."""

    live: Live
    answered: str
    failed: str
    cancelled: str
    waiting: str
    running: str


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def _ended(client: httpx2.Client, run_id: str) -> bool:
    return client.get(f"/v1/runs/{run_id}").json()["status"] not in ("running", "waiting", "stalled")


def _start(client: httpx2.Client, agent: str, goal: str) -> str:
    answer = client.post("/v1/runs", json={"agent": agent, "goal": goal})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _load(client: httpx2.Client, chats: int) -> None:
    """Some chats with an objective, so that the engine page has something to show."""
    for i in range(chats):
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"Tell me about the number {i}. " * (1 + 9 * (i % 4))}],
            "max_tokens": 24,
            "stream": True,
            "pentad": {"slo": {"ttft_s": 0.3, "inter_token_s": 0.04}},
        }
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            response.read()


@pytest.fixture(scope="module")
def site(smollm2_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = EngineSettings(kv_bytes=48 << 20, threads=1)
    engine = local_backend(open_model(smollm2_path, name=MODEL), settings)
    never = asyncio.Event()
    scripts = {
        "talker": ScriptedBackend([[TALK]], repeat=True),
        "broken": ScriptedBackend([[BackendFailed("the engine broke", hint="try again")]], repeat=True),
        "slow": ScriptedBackend([["begun ", never]], repeat=True),
        "caller": ScriptedBackend([[CALL]], repeat=True),
    }
    models = ModelService({MODEL: engine, **scripts}, router=Fixed(), default=MODEL)
    agents = {
        "demo": load_agent("demo"),
        "fragile": AgentSpec(name="fragile", model="broken", tools=("calculator",)),
        "patient": AgentSpec(name="patient", model="slow"),
        "careful": AgentSpec(
            name="careful",
            description="Asks before it calculates.",
            model="caller",
            tools=("calculator",),
            ask=("calculator",),
            planner=Choice(name="react", options={"max_plan": 0}),
        ),
    }
    runtime = AgentRuntime(models, Journal(tmp_path_factory.mktemp("j") / "journal.sqlite3"), agents=agents)
    with live(Services(models=models, agents=runtime)) as server:
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            for goal in ("What is 12 times 31, and which weekday is 2027-03-01?", "What is 5 times 9?"):
                first = _start(client, "demo", goal)
                eventually(lambda run=first: _ended(client, run), within_s=60)
            answered = _start(client, "demo", "What is 347 times 28, and which weekday is 2026-12-25?")
            eventually(lambda: _ended(client, answered), within_s=60)
            failed = _start(client, "fragile", "Add up the invoices of last week")
            eventually(lambda: _ended(client, failed), within_s=60)
            cancelled = _start(client, "patient", "Watch the build and tell me when it is done")
            eventually(lambda: client.get(f"/v1/runs/{cancelled}").json()["sequence"] > 1, within_s=60)
            client.post(f"/v1/runs/{cancelled}/cancel", json={})
            waiting = _start(client, "careful", "How much VAT is in the order of 1200 euros?")
            eventually(lambda: client.get(f"/v1/runs/{waiting}").json()["status"] == "waiting", within_s=60)
            running = _start(client, "patient", "Tell me about every bridge over the river")
            _load(client, 12)
        yield Site(
            live=server,
            answered=answered,
            failed=failed,
            cancelled=cancelled,
            waiting=waiting,
            running=running,
        )
    asyncio.run(runtime.close())
    asyncio.run(engine.close())


def _measure(window: Browser, site: Site) -> None:
    """Lets the engine work while its page is looked at."""
    with httpx2.Client(base_url=site.live.url, timeout=60) as client:
        _load(client, 4)
    eventually(lambda: window.count(".plot canvas") > 1, within_s=20)


def _choose_in_drawer(window: Browser) -> None:
    window.click(".drawer-bar button:nth-child(2)")
    window.choose("#model", "talker")
    window.click(".drawer-bar button:nth-child(2)")


def take(window: Browser, name: str) -> None:
    """One picture of what is in the window, whole."""
    assert window.script("return document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
    if folder := os.environ.get("CONSOLE_SCREENSHOTS"):
        window.screenshot(pathlib.Path(folder) / f"{name}.png")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_drawn_within_its_window(window: Browser, site: Site, scheme: str, size: str) -> None:
    url = f"{site.live.url}/console"
    window.viewport(*SIZES[size], phone=size == "phone")
    window.scheme(scheme)
    end = f"{scheme}-{size}"
    pages = {
        "run": (f"/runs/{site.answered}", ".time-card", "unattributed"),
        "run-step": (f"/runs/{site.answered}?step=2", ".detail", "bound by"),
        "run-failed": (f"/runs/{site.failed}", "#run-status", "failed"),
        "run-cancelled": (f"/runs/{site.cancelled}", "#run-status", "cancelled"),
        "run-waiting": (f"/runs/{site.waiting}", ".approval", "calculator"),
        "run-running": (f"/runs/{site.running}", "#run-status", "running"),
        "runs": ("/runs", ".agents", "demo"),
        "engine": ("/engine", ".models", MODEL),
        "chat-empty": ("/chat", ".messages", "Ask something"),
    }
    for name, (path, selector, words) in pages.items():
        window.open(url + path)
        window.wait(selector, words)
        if name == "engine":
            _measure(window, site)
        take(window, f"{name}-{end}")
    window.choose("#model", "talker") if size == "wide" else _choose_in_drawer(window)
    window.type("#prompt", "How do I compute the area of a circle?")
    window.click("#send")
    window.wait(".message.assistant .meta", "generated")
    take(window, f"chat-{end}")
    assert window.complaints() == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_sign_in_page_is_drawn_within_its_window(window: Browser, scheme: str, size: str) -> None:
    with scripted(["hello"], api_keys=("k-1",)) as server:
        window.viewport(*SIZES[size], phone=size == "phone")
        window.scheme(scheme)
        window.open(f"{server.url}/console")
        window.wait(".sign-in", "asks for an API key")
        take(window, f"sign-in-{scheme}-{size}")
