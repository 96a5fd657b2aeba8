"""The console's chat in a real browser: it streams, keeps, edits and copies, and nothing said can act."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator

import pytest
from browser import Browser, browser
from console_support import HOSTILE, send

from gateway_support import eventually, scripted
from pentad.errors import BackendFailed
from pentad.types import Usage


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        opened.viewport(1400, 900)
        yield opened


def answers(window: Browser) -> int:
    """How many answers are shown whole."""
    return window.count(".message.assistant:not(.live)")


def test_a_chat_streams_the_answer_and_shows_its_usage(window: Browser) -> None:
    with scripted(["Paris ", "is ", "the capital."]) as server:
        window.open(f"{server.url}/console")
        window.wait("#health", "ready")
        send(window, "Capital of France?")
        window.wait(".message.assistant .meta", "generated")
        assert window.text(".message.assistant .body") == "Paris is the capital."
        assert window.text(".message.user .body") == "Capital of France?"
        assert window.complaints() == []


def test_the_conversation_is_sent_along_with_the_next_turn(window: Browser) -> None:
    with scripted(["one"], ["two"]) as server:
        window.open(f"{server.url}/console")
        for i, prompt in enumerate(("first", "second"), 1):
            send(window, prompt)
            eventually(lambda i=i: answers(window) == i)
        assert server.backend is not None
        messages = server.backend.requests[-1].messages
        assert messages is not None
        assert [(m.role, m.content) for m in messages] == [
            ("user", "first"),
            ("assistant", "one"),
            ("user", "second"),
        ]


def test_stop_ends_the_answer_at_the_server_and_keeps_what_there_is(window: Browser) -> None:
    with scripted(["begun ", asyncio.Event(), "never"]) as server:
        window.open(f"{server.url}/console")
        send(window, "go on")
        window.wait(".message.assistant .body", "begun")
        window.click("#stop")
        window.wait(".message.assistant .meta", "stopped")
        backend = server.backend
        assert backend is not None
        eventually(lambda: backend.closed_early == 1)


def test_a_chat_outlives_a_reload_under_its_own_address(window: Browser) -> None:
    with scripted(["kept answer"]) as server:
        window.open(f"{server.url}/console/chat")
        send(window, "Remember this chat")
        window.wait(".message.assistant .meta", "generated")
        where = str(window.script("return location.pathname"))
        assert where.startswith("/console/chat/")
        window.open(server.url + where)
        window.wait(".message.assistant .body", "kept answer")
        window.wait("#chat-list", "Remember this chat")
        assert window.script("return document.title") == "Remember this chat · Pentad"
        assert window.complaints() == []


def test_markdown_becomes_elements_and_code_can_be_copied(window: Browser) -> None:
    said = (
        "# Head\n\n**bold** and `code`\n\n- one\n- two\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nx = 1 < 2\n```\n"
    )
    with scripted([said]) as server:
        window.open(f"{server.url}/console")
        send(window, "write")
        window.wait(".message.assistant .meta", "generated")
        body = ".message.assistant .body"
        for selector in ("h3", "strong", "li", "table td", "pre code", ".code-bar button"):
            assert window.count(f"{body} {selector}") > 0, selector
        assert window.text(f"{body} pre code") == "x = 1 < 2"
        window.script(
            "navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); }"
        )
        window.click(f"{body} .code-bar button")
        eventually(lambda: window.script("return window.copied ?? ''") == "x = 1 < 2")


def test_an_edited_question_and_a_second_answer_are_new_versions_and_none_is_lost(window: Browser) -> None:
    with scripted(["first answer"], ["second answer"], ["third answer"]) as server:
        window.open(f"{server.url}/console")
        send(window, "a question")
        window.wait(".message.assistant .meta", "generated")
        window.script(
            "[...document.querySelectorAll('button')].find(b => b.innerText === 'Regenerate').click()"
        )
        window.wait(".message.assistant .body", "second answer")
        window.wait(".message.assistant .turn-tools", "2 of 2")
        window.click("[aria-label='Version before']")
        window.wait(".message.assistant .body", "first answer")
        window.script("[...document.querySelectorAll('button')].find(b => b.innerText === 'Edit').click()")
        window.type(".edit textarea", " made better")
        window.click(".edit button[type=submit]")
        window.wait(".message.assistant .body", "third answer")
        assert window.text(".message.user .body") == "a question made better"
        assert server.backend is not None
        last = server.backend.requests[-1].messages
        assert last is not None
        assert [m.content for m in last] == ["a question made better"]
        window.click(".message.user [aria-label='Version before']")
        window.wait(".message.user .body", "a question")
        assert window.count(".message.assistant") == 1


def test_the_panel_sends_what_is_set_and_nothing_else(window: Browser) -> None:
    with scripted(["ok"]) as server:
        window.open(f"{server.url}/console")
        window.type("#system", "Be brief.")
        for field, value in (("#temperature", "0.25"), ("#top-k", "7"), ("#max-tokens", "33")):
            window.type(field, value)
        window.type("#stop-strings", "END")
        send(window, "hello")
        window.wait(".message.assistant .meta", "generated")
        assert server.backend is not None
        request = server.backend.requests[-1]
        drawn = request.sampling
        assert (drawn.temperature, drawn.top_k, drawn.max_tokens, drawn.stop) == (0.25, 7, 33, ("END",))
        assert drawn.seed is None
        assert request.messages is not None
        assert (request.messages[0].role, request.messages[0].content) == ("system", "Be brief.")


def test_text_files_go_along_and_others_are_refused_by_name(window: Browser, tmp_path: pathlib.Path) -> None:
    note, picture = tmp_path / "note.txt", tmp_path / "p.png"
    note.write_text("the code is 4711", encoding="utf-8")
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    with scripted(["read"]) as server:
        window.open(f"{server.url}/console")
        window.type("#files", f"{note}\n{picture}")
        window.wait(".composer .files", "note.txt")
        window.wait("#notice", "p.png is not a text file in UTF-8")
        send(window, "What is the code?")
        window.wait(".message.assistant .meta", "generated")
        window.wait(".message.user .files", "note.txt")
        assert server.backend is not None
        asked = server.backend.requests[-1].messages
        assert asked is not None
        assert asked[-1].content == "File note.txt:\nthe code is 4711\n\nWhat is the code?"


def test_what_a_model_says_is_shown_and_never_acts(window: Browser) -> None:
    with scripted([HOSTILE]) as server:
        window.open(f"{server.url}/console")
        send(window, "attack")
        window.wait(".message.assistant .meta", "generated")
        body = window.script("return document.querySelector('.message.assistant .body').textContent")
        assert "<img src=x onerror=" in body
        assert "\u202e" not in body
        assert "\x1b" not in body
        assert window.count(".messages img, .messages script, .messages b, .messages iframe") == 0
        links = window.script(
            "return [...document.querySelectorAll('.messages a')].map(a => [a.href, a.rel, a.innerText])"
        )
        assert all("noopener" in rel and href in text for href, rel, text in links), links
        assert not any(href.startswith("javascript") for href, _, _ in links)
        loaded = window.script("return performance.getEntriesByType('resource').map(r => r.name)")
        assert all(name.startswith(server.url) for name in loaded)
        assert window.script("return window.hacked ?? null") is None


@pytest.mark.parametrize("text", ["> " * 4000 + "deep", "[" * 3000, "*a" * 3000, "&#27;[31m&#x202e;"])
def test_text_made_to_hurt_the_reader_is_still_shown(window: Browser, text: str) -> None:
    with scripted([text], ["still here"]) as server:
        window.open(f"{server.url}/console")
        send(window, "go")
        window.wait(".message.assistant .meta", "generated")
        shown = window.script("return document.querySelector('.message.assistant .body').textContent")
        assert shown
        assert not {"\x1b", "\u202e"} & set(shown)
        send(window, "more")
        eventually(lambda: answers(window) == 2)


def test_an_error_is_shown_in_the_servers_own_words(window: Browser) -> None:
    with scripted([BackendFailed("the engine broke", hint="try again")]) as server:
        window.open(f"{server.url}/console")
        send(window, "hello")
        window.wait(".message.failed .body", "the engine broke; try again")


def test_the_usage_tells_what_came_from_the_cache(window: Browser) -> None:
    used = Usage(prompt_tokens=40, cached_tokens=32, completion_tokens=2)
    with scripted(["hi ", "there", used]) as server:
        window.open(f"{server.url}/console")
        send(window, "hello")
        window.wait(".message.assistant .meta", "40 prompt tokens (32 cached) · 2 generated")
