"""Runs whose goal shows an image: what the model gets, what is kept, and what a restart makes of it."""

from __future__ import annotations

import asyncio
import base64
import pathlib
import sqlite3

import httpx2
import pytest

from agent_support import call, harness, run, spec
from gateway_app import BASE
from pentad.agent.erasure import remove_runs
from pentad.agent.journal import Journal
from pentad.agent.journal_store.sqlite_file import SqliteFile
from pentad.agent.prompt_store import DAY_S, PromptRetention
from pentad.agent.tools.functions import tool
from pentad.application.gateway import GatewaySettings, create_app
from pentad.application.services import Services
from pentad.content import media
from pentad.types import Request

PNG = b"\x89PNG\r\n\x1a\n" + b"canary-bytes"
IMAGE = media("image", "image/png", PNG, name="x.png")


@tool(effects="none")
def weigh(thing: str) -> str:
    """Weighs a thing."""
    return f"the {thing} weighs 3 kg"


def shown(request: Request) -> list[bytes]:
    return [part.data for part in request.media]


def counted(path: pathlib.Path, table: str) -> int:
    with sqlite3.connect(path / "journal.db") as db:
        return int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def test_every_step_sees_the_image_behind_the_goal_and_the_journal_only_names_it(
    tmp_path: pathlib.Path,
) -> None:
    async def scenario() -> None:
        turns = [[call("weigh", thing="cat")], ["3 kg"]]
        async with harness(tmp_path, turns, [weigh], media=["image"]) as h:
            state = await h.work(spec(tools=("weigh",)), "How heavy is it?", media=[IMAGE])
            assert state.status == "answered"
            assert [shown(request) for request in h.backend.requests] == [[PNG], [PNG]]
            asked = next(m for m in h.backend.requests[0].messages or () if m.media)
            assert [p if isinstance(p, str) else p.kind for p in asked.parts] == ["How heavy is it?", "image"]
            with sqlite3.connect(tmp_path / "journal.db") as db:
                payloads = "".join(row[0] for row in db.execute("SELECT payload FROM events"))
            assert IMAGE.sha256 in payloads
            assert "canary-bytes" not in payloads
            prompts = [p.text or "" for p in h.runtime.prompts(state.run_id)]
            assert all(IMAGE.sha256 in text for text in prompts)
            assert not any("canary-bytes" in text or "iVBOR" in text for text in prompts)
            assert counted(tmp_path, "part_data") == counted(tmp_path, "part_uses") == 1

    run(scenario())


def test_a_run_that_is_taken_up_again_still_sees_its_image(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["on", asyncio.Event()]], media=["image"]) as h:
            run_id = await h.runtime.start(spec(), "What is it?", media=[IMAGE])
            async for record in h.runtime.events(run_id):
                if record.live:
                    break
        async with harness(tmp_path, [["a cat"]], media=["image"]) as h:
            await h.runtime.resume(run_id)
            assert (await h.runtime.wait(run_id)).answer == "a cat"
            assert shown(h.backend.requests[0]) == [PNG]
            forked = await h.runtime.fork(run_id, 1)
            assert h.journal.part(forked, IMAGE.sha256) == PNG
            assert counted(tmp_path, "part_data") == 1

    run(scenario())


@pytest.mark.parametrize(
    ("label", "retention", "kept"),
    [
        (None, PromptRetention(), True),
        ("local", PromptRetention(), False),
        ("local", PromptRetention(labels=("local",)), True),
        (None, PromptRetention(days=0), False),
    ],
)
def test_data_label_and_retention_decide_whether_the_data_are_kept(
    tmp_path: pathlib.Path, label: str | None, retention: PromptRetention, kept: bool
) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["on", asyncio.Event()]], media=["image"], retention=retention) as h:
            run_id = await h.runtime.start(spec(), "What is it?", media=[IMAGE], data_label=label)
            async for record in h.runtime.events(run_id):
                if record.live:
                    break
            assert shown(h.backend.requests[0]) == [PNG]
            assert counted(tmp_path, "part_data") == int(kept)
        async with harness(tmp_path, [["a cat"]], media=["image"], retention=retention) as h:
            await h.runtime.resume(run_id)
            state = await h.runtime.wait(run_id)
            if kept:
                assert state.answer == "a cat"
            else:
                assert state.status == "failed"
                assert "the image 'x.png' (image/png, 20 bytes) of the goal is not kept" in str(state.error)

    run(scenario())


def test_data_that_are_too_old_damaged_or_of_a_removed_run_are_gone(tmp_path: pathlib.Path) -> None:
    async def scenario() -> tuple[str, str]:
        async with harness(tmp_path, [["fine"]], media=["image"], repeat=True, wall=lambda: 1e9) as h:
            first = await h.work(spec(), "What is it?", media=[IMAGE])
            second = await h.work(spec(), "And now?", media=[IMAGE])
            return first.run_id, second.run_id

    first, second = run(scenario())
    path = tmp_path / "journal.db"
    assert (counted(tmp_path, "part_data"), counted(tmp_path, "part_uses")) == (1, 2)
    remove_runs(SqliteFile(path), [first])
    assert (counted(tmp_path, "part_data"), counted(tmp_path, "part_uses")) == (1, 1)
    journal = Journal(path, wall=lambda: 1e9 + 1)
    assert journal.part(second, IMAGE.sha256) == PNG
    assert journal.part(first, IMAGE.sha256) is None
    with sqlite3.connect(path) as db:
        db.execute("UPDATE part_data SET data = ?", (b"other",))
    assert journal.part(second, IMAGE.sha256) is None
    journal.close()
    journal = Journal(path, wall=lambda: 1e9 + 31 * DAY_S)
    assert journal.part(second, IMAGE.sha256) is None
    journal.close()
    assert counted(tmp_path, "part_data") == 0


def test_a_model_that_takes_text_only_ends_the_run_with_the_reason(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, []) as h:
            state = await h.work(spec(), "What is it?", media=[IMAGE])
            assert state.status == "failed"
            assert "model 'scripted' takes text, but a message holds the image 'x.png'" in str(state.error)
            assert not h.backend.requests

    run(scenario())


def test_a_goal_over_http_is_text_or_parts(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        agents = {"tester": spec()}
        async with harness(tmp_path, [["fine"]], media=["image"], repeat=True, agents=agents) as h:
            app = create_app(Services(models=h.models, agents=h.runtime), GatewaySettings())
            transport = httpx2.ASGITransport(app=app, raise_app_exceptions=True)
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
                url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
                image = {"type": "image_url", "image_url": {"url": url}}
                goal = [{"type": "text", "text": "What is it?"}, image]
                made = await client.post("/v1/runs", json={"agent": "tester", "goal": goal})
                assert (made.status_code, made.json()["goal"]) == (201, "What is it?")
                assert (await h.runtime.wait(made.json()["id"])).answer == "fine"
                assert shown(h.backend.requests[0]) == [PNG]
                alone = await client.post("/v1/runs", json={"agent": "tester", "goal": [image]})
                assert alone.status_code == 400
                assert "the goal is empty" in alone.json()["error"]["message"]

    run(scenario())
