"""The journal: what it keeps, what it refuses, and who may write."""

from __future__ import annotations

import json
import os
import pathlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from agent_support import run, spec
from pentad.agent.codec import encode
from pentad.agent.events import RunEnded, RunStarted, StepEnded
from pentad.agent.journal import Journal
from pentad.agent.journal_store.base import Db, JournalUnavailable
from pentad.agent.model_events import ModelAnswered
from pentad.agent.rows import JournalDamaged, to_row
from pentad.agent.seal import Seal
from pentad.agent.tool_events import ToolReturned
from pentad.errors import Conflict, NotFound
from pentad.types import Decision, Span, ToolCall, Usage

STARTED = RunStarted(agent=encode(spec()), goal="goal", tenant="t")
HOSTILE = "nul \0 ansi \x1b[2J surrogate \ud800 bytes \udcff end \u2028 \U0001f600"


def returned(content: str) -> ToolReturned:
    return ToolReturned(step=1, index=0, call_id="c", tool="t", status="ok", content=content)


def filled(path: pathlib.Path) -> Journal:
    journal = Journal(path / "j.db")
    usage = Usage(
        prompt_tokens=3,
        spans=(Span(layer="model", name="route", start_s=1.0, end_s=2.5),),
        decisions=(Decision(layer="model", policy="p", subject="s", chosen="c", candidates=(("a", None),)),),
    )
    answer = ModelAnswered(
        step=1,
        attempt=1,
        purpose="act",
        text="hi",
        tool_calls=(ToolCall(id="c", name="t", arguments="{}"),),
        usage=usage,
    )

    async def fill() -> None:
        for event in (STARTED, answer, returned(HOSTILE), RunEnded(status="answered", answer="a")):
            await journal.append("r", event, [Span(layer="agent", name="x", start_s=0.25, end_s=0.5)])

    run(fill())
    return journal


def tamper(path: pathlib.Path, sql: str, *values: object) -> None:
    db = sqlite3.connect(path / "j.db")
    db.execute("DROP TRIGGER IF EXISTS events_are_final")
    db.execute("DROP TRIGGER IF EXISTS events_are_kept")
    with db:
        db.execute(sql, values)
    db.close()


def test_what_is_appended_is_read_back_exactly_also_after_reopening(tmp_path: pathlib.Path) -> None:
    journal = filled(tmp_path)
    before = journal.read("r")
    assert [r.sequence for r in before] == [1, 2, 3, 4]
    assert before[0].event == STARTED
    assert before[2].event == returned(HOSTILE)
    journal.close()
    again = Journal(tmp_path / "j.db")
    assert again.read("r") == before
    assert again.read("r", after=2) == before[2:]
    assert again.read("r", after=4) == again.read("r", after=99) == []
    assert again.check_integrity() == []
    assert [(row.id, row.status, row.goal) for row in again.runs()] == [("r", "answered", "goal")]
    again.close()


def test_rows_can_be_neither_changed_nor_deleted(tmp_path: pathlib.Path) -> None:
    filled(tmp_path).close()
    db = sqlite3.connect(tmp_path / "j.db")
    for sql in ("UPDATE events SET kind = 'x'", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(sql)
    db.close()


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("UPDATE events SET payload = ? WHERE sequence = 3", ['{"__reduce__":["os.system","id"]}']),
        ("UPDATE events SET payload = ? WHERE sequence = 3", ["\x80\x04\x95 cos\nsystem\n"]),
        ("UPDATE events SET payload = ? WHERE sequence = 3", ["[" * 100_000]),
        ("UPDATE events SET payload = ? WHERE sequence = 3", ['{"step": NaN}']),
        ("UPDATE events SET payload = replace(payload, '\"ok\"', '\"fine\"') WHERE sequence = 3", []),
        (
            "UPDATE events SET payload = replace(payload, '\"step\":1', '\"step\":true') WHERE sequence = 3",
            [],
        ),
        ("UPDATE events SET payload = replace(payload, '{', '{\"extra\":1,') WHERE sequence = 3", []),
        ("UPDATE events SET kind = 'os.system' WHERE sequence = 3", []),
        ("UPDATE events SET kind = 'model_asked' WHERE sequence = 3", []),
        ("UPDATE events SET spans = '[{}]' WHERE sequence = 3", []),
        ("UPDATE events SET payload = replace(payload, 'nul', 'LUN') WHERE sequence = 3", []),
        ("UPDATE events SET at_s = at_s + 1 WHERE sequence = 3", []),
        ("UPDATE events SET digest = x'00' WHERE sequence = 3", []),
        ("DELETE FROM events WHERE sequence = 3", []),
    ],
)
def test_a_row_that_no_journal_wrote_is_rejected(
    tmp_path: pathlib.Path, sql: str, values: list[object]
) -> None:
    filled(tmp_path).close()
    tamper(tmp_path, sql, *values)
    journal = Journal(tmp_path / "j.db")
    with pytest.raises(JournalDamaged, match="of run 'r' is damaged"):
        journal.read("r")
    assert any("damaged" in problem for problem in journal.check_integrity())
    journal.close()


def test_the_list_of_runs_is_checked_against_the_events(tmp_path: pathlib.Path) -> None:
    filled(tmp_path).close()
    tamper(tmp_path, "UPDATE runs SET status = 'running'")
    journal = Journal(tmp_path / "j.db")
    assert journal.check_integrity() == ["run 'r' is listed as running, its events say answered"]
    journal.close()


def test_a_file_of_another_format_is_refused(tmp_path: pathlib.Path) -> None:
    filled(tmp_path).close()
    tamper(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(Conflict, match="format 99, this version writes 2"):
        Journal(tmp_path / "j.db")


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "j.db").write_bytes(b"not a database" * 100)
    with pytest.raises(JournalUnavailable, match=r"'j\.db' cannot be used"):
        Journal(tmp_path / "j.db")


def test_unknown_runs_are_not_found(tmp_path: pathlib.Path) -> None:
    journal = filled(tmp_path)
    for ask in (journal.read, journal.run):
        with pytest.raises(NotFound):
            ask("nope")
    with pytest.raises(NotFound):
        run(journal.claim("nope"))
    journal.close()


def test_every_failing_commit_is_reported_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """EIO at the Nth write, for all N: what was acknowledged is there, what was not is not."""
    for nth in range(1, 7):
        commits, said = 0, []

        def on_commit(moment: str, nth: int = nth) -> None:
            nonlocal commits
            commits += moment == "before"
            if commits == nth and moment == "before":
                raise sqlite3.OperationalError("disk I/O error")

        path = tmp_path / f"{nth}.db"
        journal = Journal(path, on_commit=on_commit)

        async def write(journal: Journal = journal, said: list[str] = said) -> list[int]:
            acked: list[int] = []
            for number in range(6):
                event = STARTED if not acked else StepEnded(step=number, outcome="called_tools")
                try:
                    acked.append((await journal.append("r", event)).sequence)
                except JournalUnavailable as error:
                    said.append(str(error))
            return acked

        acked = run(write())
        assert len(acked) == 5
        assert "disk I/O error" in said[0]
        journal.close()
        again = Journal(path)
        assert [r.sequence for r in again.read("r")] == acked == [1, 2, 3, 4, 5]
        assert again.check_integrity() == []
        again.close()


def test_a_run_belongs_to_one_living_process(tmp_path: pathlib.Path) -> None:
    """A second process is refused while the first lives, and welcome once it was killed."""
    code = (
        "import asyncio, sys\n"
        "from pentad.agent.journal import Journal\n"
        "from pentad.agent.events import RunStarted\n"
        "j = Journal(sys.argv[1])\n"
        "asyncio.run(j.append('r', RunStarted(agent={}, goal='g', tenant='t')))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "j.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    journal = Journal(tmp_path / "j.db")
    with pytest.raises(Conflict, match=f"process {process.pid}"):
        run(journal.claim("r"))
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    run(journal.claim("r"))
    journal.close()


def test_closing_gives_claims_back(tmp_path: pathlib.Path) -> None:
    first, second = Journal(tmp_path / "j.db"), Journal(tmp_path / "j.db")
    run(first.append("r", STARTED))
    with pytest.raises(Conflict):
        run(second.claim("r"))
    first.close()
    run(second.claim("r"))
    with pytest.raises(JournalUnavailable, match="closed"):
        run(first.append("r", StepEnded(step=1, outcome="planned")))
    second.close()


def test_an_effect_is_forced_to_the_disk_and_a_note_is_not(tmp_path: pathlib.Path) -> None:
    seen: list[int] = []
    journal = Journal(tmp_path / "j.db")
    real = journal._transact

    def spy(db: Db, change: Callable[[Db], object], **how: Any) -> None:
        def change_and_look(db: Db) -> None:
            change(db)
            seen.append(db.execute("PRAGMA synchronous").fetchone()[0])

        real(db, change_and_look, **how)

    journal._transact = spy  # type: ignore[method-assign]
    run(journal.append("r", STARTED))
    run(journal.append("r", returned("x")))
    run(journal.append("r", StepEnded(step=1, outcome="called_tools")))
    assert seen == [1, 2, 1]
    journal.close()


def test_rows_are_plain_ascii_json(tmp_path: pathlib.Path) -> None:
    journal = filled(tmp_path)
    for record in journal.read("r"):
        payload = to_row(record, b"", Seal(b"k"))[4]
        assert payload.isascii()
        json.loads(payload)
    journal.close()
