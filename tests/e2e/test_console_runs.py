"""The console's runs in a real browser: started, watched, answered, forked, and found again."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator

import httpx2
import pytest
from browser import Browser, browser
from console_support import ASKING, CALCULATION, FREE, HELPER, HOSTILE, line, start, with_agents

from gateway_support import eventually
from pentad.agent.spec import AgentSpec
from pentad.errors import BackendFailed
from pentad.types import ToolCall

WORKER = AgentSpec(name="worker", description="Calculates.", tools=("calculator",), planner=FREE)


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        opened.viewport(1400, 900)
        yield opened


def test_any_agent_is_started_with_a_model_and_followed_to_its_answer(
    window: Browser, tmp_path: pathlib.Path
) -> None:
    with with_agents(tmp_path, [HELPER, WORKER], [CALCULATION], ["It is 42."]) as server:
        window.open(f"{server.url}/console/runs")
        window.wait(".agents", "Calculates.")
        window.click("#agent-worker")
        window.choose("#run-model", "scripted")
        window.type("#goal", "What is 6 times 7?")
        window.click("#start-run")
        window.wait("#run-status", "answered")
        window.wait(".answer .body", "It is 42.")
        window.wait("#run-list", "answered")
        window.wait(".wf-rows", "calculator")
        window.wait(".time-card", "unattributed")
        nodes = window.script("return [...document.querySelectorAll('.node .hit')].map(n => n.ariaLabel)")
        assert [node.split()[0] for node in nodes] == ["Goal", "calculator", "Answer"]
        assert all(", done" in node for node in nodes)
        assert window.complaints() == []


def test_a_step_shows_its_prompt_arguments_and_result_and_survives_a_reload(
    window: Browser, tmp_path: pathlib.Path
) -> None:
    with with_agents(tmp_path, [WORKER], [CALCULATION], ["It is 42."]) as server:
        run = start(server, "worker", "What is 6 times 7?")
        window.open(f"{server.url}/console/runs/{run}")
        window.wait("#run-status", "answered")
        window.activate("[data-key='node s1.0']")
        window.wait(".detail", '"expression": "6*7"')
        assert window.script("return location.search") == "?step=1"
        window.open(str(window.script("return location.href")))
        window.wait(".detail", "42")
        window.click(".detail .prompt summary")
        window.wait(".detail .prompt pre", "What is 6 times 7?")
        asked = httpx2.get(f"{server.url}/v1/runs/{run}/prompts").json()["data"][0]["prompt"]
        shown = window.script("return document.querySelector('.detail .prompt pre').textContent")
        assert shown == asked
        assert window.complaints() == []


def test_a_failed_run_says_what_went_wrong(window: Browser, tmp_path: pathlib.Path) -> None:
    broken = [BackendFailed("the engine broke", hint="try again")]
    with with_agents(tmp_path, [WORKER], broken, broken, broken, broken) as server:
        run = start(server, "worker", "Fail, please")
        window.open(f"{server.url}/console/runs/{run}")
        window.wait("#run-status", "failed")
        window.wait(".answer.failed", "the engine broke")
        window.wait(".steps-card", "failed")
        assert window.count(".node.failed") == 1
        assert window.count(".notice:not([hidden])") == 0
        assert window.complaints() == []


def test_a_run_is_cancelled_and_says_so_after_a_reload_too(window: Browser, tmp_path: pathlib.Path) -> None:
    with with_agents(tmp_path, [HELPER], ["begun ", asyncio.Event()]) as server:
        run = start(server, "helper", "Go on for ever")
        window.open(f"{server.url}/console/runs/{run}")
        window.wait("#run-status", "running")
        window.click("#cancel")
        window.wait("#run-status", "cancelled")
        window.open(f"{server.url}/console/runs/{run}")
        window.wait("#run-status", "cancelled")
        assert window.count("#cancel") == 0
        assert window.count(".node.active, .wf-bar.open") == 0
        assert window.complaints() == []


@pytest.mark.parametrize(("button", "told"), [(".approve", "approved"), (".deny", "denied")])
def test_a_waiting_run_shows_the_call_and_takes_the_persons_word(
    window: Browser, tmp_path: pathlib.Path, button: str, told: str
) -> None:
    with with_agents(tmp_path, [ASKING], [CALCULATION], ["Done."]) as server:
        run = start(server, "asking", "What is 6 times 7?")
        window.open(f"{server.url}/console/runs/{run}")
        window.wait("#run-status", "waiting")
        window.wait(".approval", "6*7")
        assert window.count(".node.waiting") == 1
        window.type(".approval input", "as you like")
        window.click(button)
        window.wait("#run-status", "answered")
        assert window.count(".approval") == 0
        window.open(f"{server.url}/console/runs/{run}?step=1")
        window.wait(".detail", f"{told} after")
        window.wait(".detail", "as you like")
        result = httpx2.get(f"{server.url}/v1/runs/{run}").json()
        assert result["pending"] == []


def test_a_run_is_forked_from_a_step_with_another_goal(window: Browser, tmp_path: pathlib.Path) -> None:
    with with_agents(tmp_path, [WORKER], [CALCULATION], ["It is 42."], ["It is 42, in words."]) as server:
        run = start(server, "worker", "What is 6 times 7?")
        window.open(f"{server.url}/console/runs/{run}?step=2")
        window.wait("#run-status", "answered")
        window.click("#fork")
        window.script("document.querySelector('#fork-goal').value = ''")
        window.type("#fork-goal", "Say it in words")
        window.click(".fork button[type=submit]")
        window.wait(".run h1", "Say it in words")
        window.wait("#run-status", "answered")
        window.wait(".answer", "in words")
        window.wait(".run-head", "forked from step 2")
        assert run not in str(window.script("return location.pathname"))
        assert window.complaints() == []


def test_a_cut_line_is_found_again_behind_the_last_event(window: Browser, tmp_path: pathlib.Path) -> None:
    with with_agents(tmp_path, [ASKING], [CALCULATION], ["It is 42."]) as server, line(server) as cable:
        run = start(server, "asking", "What is 6 times 7?")
        window.open(f"{cable.url}/console/runs/{run}")
        window.wait("#run-status", "waiting")
        eventually(lambda: window.count(".approval") == 1, within_s=15)
        cable.cut()
        window.wait(".lost", "connection is lost")
        pending = httpx2.get(f"{server.url}/v1/runs/{run}").json()["pending"][0]["id"]
        path = f"{server.url}/v1/runs/{run}/approvals/{pending}"
        assert httpx2.post(path, json={"approve": True}).status_code == 200
        cable.heads.clear()
        cable.mend()
        window.wait("#run-status", "answered")
        window.wait(".answer .body", "It is 42.")
        assert window.count(".step-row") == 2
        resumed = [head for head in cable.heads if f"/v1/runs/{run}/events" in head]
        assert resumed
        assert all("last-event-id: " in head for head in resumed)


def test_a_tab_that_nobody_sees_gives_its_connection_up_and_takes_it_again(
    window: Browser, tmp_path: pathlib.Path
) -> None:
    see = (
        "Object.defineProperty(document, 'hidden', {configurable: true, get: () => HIDDEN});"
        "document.dispatchEvent(new Event('visibilitychange'));"
    )
    with with_agents(tmp_path, [ASKING], [CALCULATION], ["It is 42."]) as server, line(server) as cable:
        run = start(server, "asking", "What is 6 times 7?")
        window.open(f"{cable.url}/console/runs/{run}")
        window.wait(".approval", "6*7")
        streams = server.gateway.watch
        eventually(lambda: len(streams) == 1)
        window.script("window.later = setTimeout; window.setTimeout = (f, ms) => later(f, Math.min(ms, 20));")
        window.script(see.replace("HIDDEN", "true"))
        eventually(lambda: len(streams) == 0, within_s=15)
        cable.heads.clear()
        window.script("window.setTimeout = window.later;" + see.replace("HIDDEN", "false"))
        eventually(lambda: any(f"/{run}/events" in head for head in cable.heads), within_s=15)
        assert any("last-event-id: " in head for head in cable.heads if "/events" in head)
        window.click(".approve")
        window.wait("#run-status", "answered")


def test_a_run_that_nobody_works_on_is_resumed(window: Browser, tmp_path: pathlib.Path) -> None:
    with with_agents(tmp_path, [HELPER], ["begun ", asyncio.Event()], drain_s=0.1) as before:
        run = start(before, "helper", "Say hello")
    with with_agents(tmp_path, [HELPER], ["Hello again."]) as server:
        window.open(f"{server.url}/console/runs/{run}")
        window.wait("#run-status", "running")
        assert window.count("#resume") == 0
        window.script("const now = Date.now; Date.now = () => now() + 120_000;")
        window.click("#resume")
        window.wait("#run-status", "answered")
        window.wait(".answer .body", "Hello again.")


def test_nothing_that_a_run_says_can_act(window: Browser, tmp_path: pathlib.Path) -> None:
    call = ToolCall(
        id="c1", name="calculator", arguments='{"expression": "<img src=x onerror=window.hacked=1>"}'
    )
    with with_agents(tmp_path, [WORKER], [call], [CALCULATION], [HOSTILE]) as server:
        run = start(server, "worker", f"Tell me <b>something</b> {HOSTILE}")
        window.open(f"{server.url}/console/runs/{run}?step=1")
        window.wait("#run-status", "answered")
        window.wait(".detail", "onerror")
        assert "<b>something</b>" in window.text(".run h1")
        assert window.count("main img, main b:not(.wf-name b, .decisions b), main script, main iframe") == 0
        assert window.script("return window.hacked ?? null") is None
        assert not {"\x1b", "\u202e"} & set(
            str(window.script("return document.body.innerText + document.title"))
        )
        links = window.script(
            "return [...document.querySelectorAll('.answer a')].map(a => [a.rel, a.innerText])"
        )
        assert ["noopener noreferrer nofollow", "bank (https://evil.example/steal?q=secret)"] in links


def test_an_unknown_run_is_named_as_such_and_a_bent_address_reaches_no_other_route(
    window: Browser, tmp_path: pathlib.Path
) -> None:
    with with_agents(tmp_path, [HELPER]) as server, line(server) as cable:
        window.open(f"{cable.url}/console/runs/run_absent")
        window.wait(".run", "No such run")
        cable.heads.clear()
        window.open(f"{cable.url}/console/runs/..%2F..%2Fv1%2Fmodels")
        eventually(lambda: any("/v1/models" in head for head in cable.heads) is False)
        asked = " ".join(cable.heads)
        assert "/v1/runs/../" not in asked
        assert "get /v1/models " not in asked


def test_agents_come_from_files_as_they_are_now_and_a_broken_one_shows_why(
    window: Browser, tmp_path: pathlib.Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\ndescription: My own.\n", encoding="utf-8")
    with with_agents(tmp_path, [HELPER], ["Hello."], files=[str(mine)]) as server:
        window.open(f"{server.url}/console/runs")
        window.wait(".agents", "My own.")
        mine.write_text("name: mine\nmode: gided\n", encoding="utf-8")
        window.open(f"{server.url}/console/runs?agent=mine&goal=Say+hello")
        window.wait(".agents .trouble", "mode")
        assert window.script("return document.querySelector('#goal').value") == "Say hello"
        window.click("#start-run")
        window.wait("#run-status", "answered")
