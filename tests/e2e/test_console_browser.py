"""The console in a real browser: chat, runs and gauges work, and nothing that a model says can act."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from browser import Browser, browser

from gateway_support import Live, eventually, live, model_service, scripted
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.application.services import Services
from pentad.errors import BackendFailed
from pentad.testing.backends import ScriptedBackend, Turn

HOSTILE = (
    "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
    "![p](http://127.0.0.1:9/leak.png) \u202egpj.exe \x1b[31mred <b>bold</b>"
)


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@contextmanager
def with_agent(folder: pathlib.Path, *turns: Turn) -> Iterator[Live]:
    """A server with one agent named `helper` over a scripted model."""
    backend = ScriptedBackend(list(turns))
    models = model_service(backend)
    journal = Journal(folder / "journal.sqlite3")
    agents = AgentRuntime(models, journal, agents={"helper": AgentSpec(name="helper")})
    try:
        with live(Services(models=models, agents=agents), backend=backend) as server:
            yield server
    finally:
        asyncio.run(agents.close())


def keep(window: Browser, name: str) -> None:
    """Leaves a picture for a person where CONSOLE_SCREENSHOTS names a folder."""
    if folder := os.environ.get("CONSOLE_SCREENSHOTS"):
        window.screenshot(pathlib.Path(folder) / f"{name}.png")


def test_a_chat_streams_the_answer_and_shows_its_usage(window: Browser) -> None:
    with scripted(["Paris ", "is ", "the capital."]) as server:
        window.open(f"{server.url}/console")
        window.wait("#health", "ready")
        window.type("#prompt", "Capital of France?")
        window.click("#send")
        window.wait(".message.assistant .meta", "generated")
        assert window.text(".message.assistant .body") == "Paris is the capital."
        assert window.text(".message.user .body") == "Capital of France?"
        keep(window, "chat")
        assert window.complaints() == []


def test_the_conversation_is_sent_along_with_the_next_turn(window: Browser) -> None:
    with scripted(["one"], ["two"]) as server:
        window.open(f"{server.url}/console")
        for i, prompt in enumerate(("first", "second"), 1):
            window.type("#prompt", prompt)
            window.click("#send")
            eventually(lambda i=i: window.count(".message.assistant:not(.live) .meta:not(:empty)") == i)
        assert server.backend is not None
        messages = server.backend.requests[-1].messages
        assert messages is not None
        assert [(m.role, m.content) for m in messages] == [
            ("user", "first"),
            ("assistant", "one"),
            ("user", "second"),
        ]


def test_stop_ends_the_answer_at_the_server(window: Browser) -> None:
    with scripted(["begun ", asyncio.Event(), "never"]) as server:
        window.open(f"{server.url}/console")
        window.type("#prompt", "go on")
        window.click("#send")
        window.wait(".message.assistant .body", "begun")
        window.click("#stop")
        window.wait(".message.assistant .meta", "stopped")
        backend = server.backend
        assert backend is not None
        eventually(lambda: backend.closed_early == 1)


def test_what_a_model_says_is_shown_as_text_and_never_acts(window: Browser) -> None:
    with scripted([HOSTILE]) as server:
        window.open(f"{server.url}/console")
        window.type("#prompt", "attack")
        window.click("#send")
        window.wait(".message.assistant .meta", "generated")
        body = window.script("return document.querySelector('.message.assistant .body').textContent")
        assert "<img src=x onerror=" in body
        assert "\u202e" not in body
        assert "\x1b" not in body
        assert window.count(".messages img, .messages script, .messages b, .messages a") == 0
        assert window.script("return window.hacked ?? null") is None


def test_an_error_is_shown_in_the_servers_own_words(window: Browser) -> None:
    with scripted([BackendFailed("the engine broke", hint="try again")]) as server:
        window.open(f"{server.url}/console")
        window.type("#prompt", "hello")
        window.click("#send")
        window.wait(".message.failed .body", "the engine broke; try again")


def test_a_run_is_started_watched_and_explained(window: Browser, tmp_path: pathlib.Path) -> None:
    with with_agent(tmp_path, [HOSTILE]) as server:
        window.open(f"{server.url}/console#runs")
        window.wait("#agent", "helper")
        window.type("#goal", "Tell me <b>something</b>")
        window.click("#start button")
        window.wait(".run .pill", "answered")
        window.wait(".run .legend", "unattributed")
        window.wait("#run-list", "answered")
        keep(window, "run")
        assert window.text(".run h3") == "Tell me <b>something</b>"
        assert "<img src=x" in window.text(".run .answer")
        assert window.count(".run img, .run b, .run script, .run a") == 0
        assert window.script("return window.hacked ?? null") is None
        assert window.count(".trace .event") >= 2
        assert window.complaints() == []


def test_the_engine_page_draws_a_gauge_per_number(window: Browser) -> None:
    with scripted(["hello"]) as server:
        window.open(f"{server.url}/console#engine")
        window.wait("#gauges", "scripted")
        keep(window, "engine")
        assert window.complaints() == []


def test_a_key_opens_the_api_and_stays_in_the_tab(window: Browser) -> None:
    with scripted(["welcome"], api_keys=("k-1",)) as server:
        window.open(server.url.replace("http://", "http://console:k-1@") + "/console")
        window.type("#key", "k-1\n")
        window.wait("#health", "ready")
        window.type("#prompt", "hello")
        window.click("#send")
        window.wait(".message.assistant .body", "welcome")
        assert window.script("return sessionStorage.getItem('pentad-key')") == "k-1"
        assert window.script("return JSON.stringify(localStorage)").find("k-1") == -1


def test_sections_are_reached_with_the_arrow_keys(window: Browser) -> None:
    with scripted(["hello"]) as server:
        window.open(f"{server.url}/console#chat")
        window.wait("#model", "scripted")
        window.type("#tab-chat", "\ue014")  # arrow right, over the hidden section of runs
        assert window.script("return document.querySelector('[aria-selected=true]').id") == "tab-engine"
        assert window.script("return document.activeElement.id") == "tab-engine"
