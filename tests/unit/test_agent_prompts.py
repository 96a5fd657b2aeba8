"""The exact prompts of a run's model calls: kept by content, as long and for whom the retention says."""

from __future__ import annotations

import hashlib
import json
import pathlib
import sqlite3
import zlib
from collections.abc import Sequence

import pytest

from agent_support import call, harness, run, spec
from pentad.agent import prompt_store
from pentad.agent.events import RunStarted
from pentad.agent.journal import Journal
from pentad.agent.model_events import ModelAsked
from pentad.agent.prompt_store import DAY_S, PromptRetention, PromptText
from pentad.agent.tools.functions import tool
from pentad.errors import BackendFailed, NotFound

NOW = 1_700_000_000.0


@tool(effects="none")
def weigh(thing: str) -> str:
    """Weighs a thing."""
    return f"the {thing} weighs 3 kg"


def counted(path: pathlib.Path, table: str) -> int:
    with sqlite3.connect(path / "journal.db") as db:
        return int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def test_each_model_call_has_its_prompt_and_the_event_its_digest(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [[call("weigh", thing="cat")], ["3 kg"]], [weigh]) as h:
            state = await h.work(spec(instructions="Be exact.", tools=("weigh",)), "How heavy is the cat?")
            first, second = h.runtime.prompts(state.run_id)
            assert (first.step, first.attempt, first.purpose) == (1, 1, "act")
            assert first.text is not None
            assert second.text is not None
            assert "How heavy is the cat?" in first.text
            assert "Be exact." in first.text
            assert "3 kg" not in first.text
            assert "the cat weighs 3 kg" in second.text
            assert first.sha256 == hashlib.sha256(first.text.encode()).hexdigest()
            assert [p.request_id for p in (first, second)] == [r.id for r in h.backend.requests]
            with pytest.raises(NotFound):
                h.runtime.prompts(state.run_id, tenant="other")

    run(scenario())


def test_what_is_asked_again_is_kept_once(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [[BackendFailed("gone")], ["fine"], ["fine"]]) as h:
            for _ in range(2):
                state = await h.work(spec(), "the same")
            asked = h.runtime.prompts(state.run_id)
            assert [p.text is not None for p in asked] == [True]
            assert counted(tmp_path, "prompt_texts") == 1
            assert counted(tmp_path, "prompt_uses") == 2

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
def test_data_label_and_retention_decide_whether_the_text_is_kept(
    tmp_path: pathlib.Path, label: str | None, retention: PromptRetention, kept: bool
) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["fine"]], retention=retention) as h:
            state = await h.work(spec(), "the word is xylophone", data_label=label)
            (asked,) = h.runtime.prompts(state.run_id)
            assert (asked.text is not None) is kept
            assert len(asked.sha256) == 64
            assert counted(tmp_path, "prompt_texts") == int(kept)

    run(scenario())


def test_a_prompt_that_is_too_old_is_gone_from_the_file(tmp_path: pathlib.Path) -> None:
    now = [NOW]

    async def scenario() -> str:
        async with harness(tmp_path, [["fine"]], wall=lambda: now[0]) as h:
            return (await h.work(spec(), "the word is xylophone")).run_id

    run_id = run(scenario())
    now[0] += 31 * DAY_S
    journal = Journal(tmp_path / "journal.db", wall=lambda: now[0])
    assert [p.text for p in journal.prompts(run_id)] == [None]
    journal.close()
    assert counted(tmp_path, "prompt_texts") == counted(tmp_path, "prompt_uses") == 0


def test_a_damaged_text_is_not_shown_as_what_was_asked(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["fine"]]) as h:
            state = await h.work(spec(), "what was asked")
            with sqlite3.connect(tmp_path / "journal.db") as db:
                db.execute("UPDATE prompt_texts SET text = ?", (b"x\x9c",))
            assert [p.text for p in h.runtime.prompts(state.run_id)] == [None]

    run(scenario())


def test_a_journal_from_before_gets_the_tables_and_reads_calls_without_a_digest(
    tmp_path: pathlib.Path,
) -> None:
    async def scenario() -> str:
        async with harness(tmp_path, [["fine"]]) as h:
            return (await h.work(spec(), "hello")).run_id

    run_id = run(scenario())
    with sqlite3.connect(tmp_path / "journal.db") as db:
        (payload,) = db.execute("SELECT payload FROM events WHERE kind = 'model_asked'").fetchone()
        db.executescript("DROP TABLE prompt_texts; DROP TABLE prompt_uses; DROP TABLE prompt_bases;")
    assert len(json.loads(payload)["prompt_sha256"]) == 64
    journal = Journal(tmp_path / "journal.db")
    assert [p.text for p in journal.prompts(run_id)] == [None]
    journal.close()


def talk(number: int) -> str:
    """A prompt of a conversation: all that was said before, something new, and an end of its own."""
    said = "".join(f"{n}: {hashlib.sha256(str(n).encode()).hexdigest()}\n" for n in range(40 + number))
    return f"{said}answer {number}"


def ask(journal: Journal, run_id: str, numbers: Sequence[int]) -> None:
    async def write() -> None:
        await journal.append(run_id, RunStarted(agent={}, goal="g", tenant="t"))
        before: PromptText | None = None
        for number in numbers:
            made = PromptText.of(talk(number))
            asked = ModelAsked(
                step=number,
                attempt=1,
                purpose="act",
                request_id=f"{run_id}.{number}",
                prompt_tokens=1,
                reserved_tokens=1,
                prompt_sha256=made.sha256,
            )
            await journal.append(run_id, asked, prompt=made.behind(before))
            before = made

    run(write())


def test_of_a_prompt_that_goes_on_from_an_earlier_one_only_the_new_part_is_kept(
    tmp_path: pathlib.Path,
) -> None:
    """Thirty prompts, each longer by a line, take little more room than the last alone, and read as asked."""
    journal = Journal(tmp_path / "journal.db")
    ask(journal, "r", range(1, 31))
    assert [prompt.text for prompt in journal.prompts("r")] == [talk(n) for n in range(1, 31)]
    journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        (kept,) = db.execute("SELECT SUM(LENGTH(text)) FROM prompt_texts").fetchone()
    whole = len(zlib.compress(talk(30).encode(), 6))
    assert kept < 2 * whole  # apart they would take about 24 times that
    assert counted(tmp_path, "prompt_bases") == 29


def test_what_goes_on_from_a_prompt_outlives_it(tmp_path: pathlib.Path) -> None:
    """The run that asked the first part is removed; another run's prompt, kept as what follows, stays."""
    journal = Journal(tmp_path / "journal.db")
    ask(journal, "first", [1, 2])
    ask(journal, "second", [2, 3])  # its first prompt is kept as what follows one of the other run
    with sqlite3.connect(tmp_path / "journal.db") as db:
        assert prompt_store.forget(db, "first") == 2
    assert [prompt.text for prompt in journal.prompts("second")] == [talk(2), talk(3)]
    assert [prompt.text for prompt in journal.prompts("first")] == [None, None]
    journal.close()
    assert counted(tmp_path, "prompt_texts") == 2
    assert counted(tmp_path, "prompt_bases") == 1


def test_prompts_that_refer_to_each_other_are_damaged_and_not_read_for_ever(tmp_path: pathlib.Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    ask(journal, "r", [1, 2])
    with sqlite3.connect(tmp_path / "journal.db") as db:
        first, second = (PromptText.of(talk(n)).sha256 for n in (1, 2))
        db.execute("INSERT INTO prompt_bases VALUES (?, ?, 10)", (first, second))
    assert [prompt.text for prompt in journal.prompts("r")] == [None, None]
    journal.close()


@pytest.mark.parametrize("days", [-1.0, float("nan"), float("inf")])
def test_a_retention_that_means_nothing_is_refused(days: float) -> None:
    with pytest.raises(ValueError, match="days"):
        PromptRetention(days=days)
