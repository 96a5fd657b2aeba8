"""The console for everybody: signed in or not, by keyboard, on a phone, light and dark, through axe."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest
from browser import Browser, browser
from console_support import ASKING, CALCULATION, FREE, HELPER, line, send, start, violations, with_agents

from gateway_support import Live, eventually, scripted
from pentad.agent.spec import AgentSpec
from pentad.errors import BackendFailed

TAB, ENTER, ESCAPE = "\ue004", "\ue007", "\ue00c"
SAID = (
    "## A title\n\nSome `code`, a [link](https://example.com/) and\n\n"
    "```python\nprint(1)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"
)
FRAGILE = AgentSpec(name="fragile", tools=("calculator",), planner=FREE)


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        opened.viewport(1400, 900)
        yield opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    live: Live
    answered: str
    failed: str
    waiting: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with a run of each kind, and an answer for each chat."""
    broken = [BackendFailed("the engine broke")]
    turns = [["Answered."], broken, broken, broken, [CALCULATION], *([[SAID]] * 12)]
    agents = [HELPER, FRAGILE, ASKING]
    with with_agents(tmp_path_factory.mktemp("site"), agents, *turns) as server:
        states = []
        for agent, state in (("helper", "answered"), ("fragile", "failed"), ("asking", "waiting")):
            run = start(server, agent, f"A goal for {agent}")
            eventually(lambda run=run, state=state: _status(server, run) == state, within_s=20)
            states.append(run)
        yield Site(live=server, answered=states[0], failed=states[1], waiting=states[2])


def _status(server: Live, run: str) -> str:
    return str(httpx2.get(f"{server.url}/v1/runs/{run}").json()["status"])


def looks(window: Browser) -> list[str]:
    """What axe finds, or does not fit, on the page as it is: light and dark, wide and on a phone."""
    found = []
    for width, scheme in ((1400, "light"), (1400, "dark"), (390, "dark"), (390, "light")):
        window.viewport(width, 860, phone=width < 500)
        window.scheme(scheme)
        found += [f"{width} {scheme}: {fault}" for fault in violations(window)]
        if not window.script("return document.documentElement.scrollWidth <= innerWidth"):
            found.append(f"{width}: wider than the window")
    return found


@pytest.mark.parametrize(
    ("path", "selector", "words"),
    [
        ("/runs", ".agents", "helper"),
        ("/runs/{answered}?step=1", ".time-card", "unattributed"),
        ("/runs/{failed}", "#run-status", "failed"),
        ("/runs/{waiting}?step=1", ".approval", "calculator"),
        ("/runs/run_absent", ".run", "No such run"),
        ("/engine", ".models", "scripted"),
        ("/chat", ".messages", "Ask something"),
    ],
)
def test_axe_finds_nothing_on_any_page(
    window: Browser, site: Site, path: str, selector: str, words: str
) -> None:
    window.viewport(1400, 900)
    runs = {"answered": site.answered, "failed": site.failed, "waiting": site.waiting}
    window.open(f"{site.live.url}/console{path.format(**runs)}")
    window.wait(selector, words)
    assert looks(window) == []


def test_axe_finds_nothing_in_an_answer_nor_in_the_drawers_of_a_phone(window: Browser, site: Site) -> None:
    window.viewport(1400, 900)
    window.open(f"{site.live.url}/console/chat")
    send(window, "Say something with parts")
    window.wait(".message.assistant .meta", "generated")
    assert looks(window) == []
    for i in (1, 2):
        window.click(f".drawer-bar button:nth-child({i})")
        assert window.count(".side") == 2
        assert violations(window) == []
    window.viewport(1400, 900)


def test_a_key_is_asked_for_on_a_page_and_stays_in_the_tab(window: Browser) -> None:
    with scripted(["welcome"], api_keys=("ann:k-1",)) as server:
        window.open(f"{server.url}/console/engine")
        window.wait(".sign-in", "asks for an API key")
        window.wait("#health", "signed out")
        assert violations(window) == []
        window.type("#key", "wrong\n")
        window.wait(".sign-in .trouble", "does not know this key")
        window.type("#key", "k-1\n")
        window.wait(".models", "scripted")
        window.wait("#health", "ready")
        assert window.script("return location.pathname") == "/console/engine"
        window.click("nav a[data-page=chat]")
        send(window, "hello")
        window.wait(".message.assistant .body", "welcome")
        assert window.script("return sessionStorage.getItem('pentad-key')") == "k-1"
        assert "k-1" not in str(
            window.script("return JSON.stringify(localStorage) + document.cookie + location.href")
        )
        window.click("#sign-out")
        window.wait(".sign-in", "asks for an API key")
        assert window.script("return sessionStorage.getItem('pentad-key')") is None
        assert "welcome" not in str(window.script("return document.body.innerText"))


def test_runs_are_followed_with_the_key(window: Browser, tmp_path: pathlib.Path) -> None:
    with with_agents(tmp_path, [HELPER], ["Hello."], api_keys=("k-2",)) as server, line(server) as cable:
        window.open(f"{cable.url}/console/runs")
        window.type("#key", "k-2\n")
        window.wait(".agents", "helper")
        window.type("#goal", "Say hello")
        window.click("#start-run")
        window.wait("#run-status", "answered")
        asked = [head for head in cable.heads if "/events http" in head]
        assert asked
        assert all("authorization: bearer k-2" in head for head in asked)
        assert not any("k-2" in head.splitlines()[0] for head in cable.heads)
        window.script("sessionStorage.clear()")


def test_chats_of_one_tenant_are_not_shown_to_another(window: Browser) -> None:
    with scripted(["for ann"], api_keys=("ann:k-1", "bob:k-2")) as server:
        window.open(f"{server.url}/console/chat")
        window.type("#key", "k-1\n")
        window.wait(".messages", "Ask something")
        send(window, "A secret of ann")
        window.wait(".message.assistant .meta", "generated")
        where = window.script("return location.href")
        window.click("#sign-out")
        window.type("#key", "k-2\n")
        window.wait("#notice", "is kept in this browser")
        window.open(str(where))
        window.wait("#chat-list", "No chats yet.")
        assert "A secret of ann" not in str(window.script("return document.body.innerText"))
        window.script("sessionStorage.clear()")


def test_a_run_is_started_and_looked_into_by_keyboard_alone(window: Browser, tmp_path: pathlib.Path) -> None:
    with with_agents(tmp_path, [FRAGILE], [CALCULATION], ["It is 42."]) as server:
        window.open(f"{server.url}/console/engine")
        window.wait("#health", "ready")
        window.press(TAB)
        assert window.focused() == "Skip to the content"
        reach(window, "nav-runs")
        window.press(ENTER)
        window.wait(".agents", "fragile")
        reach(window, "agent-fragile")
        reach(window, "goal")
        window.press(*"What is 6 times 7?")
        reach(window, "start-run")
        window.press(ENTER)
        window.wait("#run-status", "answered")
        window.wait(".time-card", "unattributed")
        reach(window, "calculator {", starts=True)
        window.press(ENTER)
        window.wait(".detail", '"expression"')
        window.press(ESCAPE)
        assert window.count(".detail:not([hidden])") == 0
        assert window.focused().startswith("1")


def reach(window: Browser, name: str, *, starts: bool = False) -> None:
    """Presses Tab until the focus is on it."""
    for _ in range(60):
        window.press(TAB)
        on = window.focused()
        if on == name or (starts and on.startswith(name)):
            return
    raise AssertionError(f"Tab does not reach {name!r}")


def test_the_engine_page_draws_memory_speed_and_latencies_against_the_objective(window: Browser) -> None:
    with scripted(["one ", "two ", "three"], repeat=True) as server:
        body = {
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "pentad": {"slo": {"ttft_s": 0.3}},
        }
        httpx2.post(f"{server.url}/v1/chat/completions", json=body)
        window.open(f"{server.url}/console/engine")
        window.wait(".models", "scripted")
        eventually(lambda: window.count(".hist") == 2, within_s=15)
        assert (
            window.script("return document.querySelector('.objective-text').textContent")
            == "objective 300 ms"
        )
        told = str(window.script("return document.querySelector('.hist').ariaLabel"))
        assert "1 measured" in told
        assert "about 100% within the objective" in told
        ticks = window.script("return [...document.querySelectorAll('.hist .tick')].map(t => t.textContent)")
        assert {"0%", "100%", "10 ms", "100 s"} <= set(ticks)
        assert window.complaints() == []


def test_a_page_loads_less_than_250_kb_and_only_from_the_server(window: Browser, site: Site) -> None:
    for path in ("/chat", f"/runs/{site.answered}", "/engine"):
        window.open(f"{site.live.url}/console{path}")
        eventually(lambda: window.count("main > *") > 0, within_s=15)
        window.wait("#health", "ready")
        entries = window.script(
            "return [...performance.getEntries()].filter(e => 'decodedBodySize' in e)"
            ".filter(e => e.name.includes('/console')).map(e => [e.name, e.decodedBodySize])"
        )
        assert sum(size for _, size in entries) < 250_000, path
        assert len(entries) > 5
        assert all(name.startswith(site.live.url) for name, _ in entries)
