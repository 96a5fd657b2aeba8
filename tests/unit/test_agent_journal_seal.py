"""What someone who can write the journal's file, but not read its key, comes to."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import pathlib
import sqlite3

import pytest

from agent_support import Harness, call, harness, run, spec
from pentad.agent.codec import encode
from pentad.agent.events import RunEnded, RunStarted
from pentad.agent.journal import Journal
from pentad.agent.rows import JournalDamaged
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.errors import Conflict, NotFound

FORMAT_1 = pathlib.Path(__file__).parents[1] / "data" / "journal-format-1.sql"
ENDED, LEFT = "run_a46da52072da451a83b0", "run_5b83da2d71384d9fa110"


def started(tenant: str, goal: str = "goal") -> RunStarted:
    return RunStarted(agent=encode(spec()), goal=goal, tenant=tenant)


def filled(path: pathlib.Path) -> pathlib.Path:
    """A journal of two runs, of two tenants."""
    journal = Journal(path / "journal.db")

    async def fill() -> None:
        for run_id, tenant in (("one", "acme"), ("two", "bolt")):
            await journal.append(run_id, started(tenant, f"secret of {tenant}"))
            await journal.append(
                run_id, ToolReturned(step=1, index=0, call_id="c", tool="t", status="ok", content="paid")
            )
        await journal.append("two", RunEnded(status="answered", answer="done"))

    run(fill())
    journal.close()
    return path / "journal.db"


def tamper(path: pathlib.Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for trigger in ("events_are_final", "events_are_kept"):
        db.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    db.create_function("sha256", 1, lambda data: hashlib.sha256(data.encode()).digest())
    with db:
        for statement in statements:
            db.execute(statement)
    db.close()


def payer(paid: list[int]) -> Tool:
    @tool(effects="keyed")
    def pay(amount: int) -> str:
        """Pays an amount."""
        paid.append(amount)
        return f"paid {amount}"

    return pay


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: pathlib.Path) -> None:
    key = filled(tmp_path).with_name("journal.db.key")
    made = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(set(made)) > 8
    Journal(tmp_path / "journal.db").close()
    assert key.read_bytes() == made
    assert sorted(p.name for p in tmp_path.iterdir()) == ["journal.db", "journal.db.key", "journal.db.lock"]


@pytest.mark.parametrize(("content", "told"), [(None, "is missing"), (b"short", "has 5 bytes")])
def test_a_journal_without_its_key_is_refused_with_the_remedy(
    tmp_path: pathlib.Path, content: bytes | None, told: str
) -> None:
    path = filled(tmp_path)
    key = path.with_name("journal.db.key")
    key.unlink()
    if content is not None:
        key.write_bytes(content)
    with pytest.raises(Conflict, match=f"{told}.*put it back from a backup"):
        Journal(path)


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM events WHERE run_id = 'one' AND sequence = 2"],
        [
            "DELETE FROM events WHERE run_id = 'one' AND sequence = 2",
            "UPDATE runs SET last_sequence = 1, last_digest = (SELECT digest FROM events "
            "WHERE run_id = 'one' AND sequence = 1) WHERE id = 'one'",
        ],
        [
            "UPDATE runs SET (last_sequence, last_digest, last_seal) = "
            "(SELECT last_sequence, last_digest, last_seal FROM runs WHERE id = 'two') WHERE id = 'one'"
        ],
        ["UPDATE runs SET last_sequence = NULL, last_digest = NULL, last_seal = NULL WHERE id = 'one'"],
        ["DELETE FROM events WHERE run_id = 'one'"],
        [
            "UPDATE events SET payload = replace(payload, 'paid', 'owed'), digest = sha256(payload) "
            "WHERE run_id = 'one' AND sequence = 2",
        ],
        ["UPDATE events SET payload = CAST(x'ff80' AS TEXT) WHERE run_id = 'one' AND sequence = 1"],
        ["UPDATE events SET at_s = 9e999 WHERE run_id = 'one' AND sequence = 1"],
        ["UPDATE events SET run_id = 'one', sequence = 3 WHERE run_id = 'two' AND sequence = 3"],
    ],
    ids=["tail", "tail-and-name", "other-name", "no-name", "all", "rehashed", "bytes", "infinity", "moved"],
)
def test_damage_stays_with_its_run(tmp_path: pathlib.Path, statements: list[str]) -> None:
    path = filled(tmp_path)
    tamper(path, *statements)

    async def scenario() -> None:
        async with DamagedHarness(tmp_path) as h:
            assert await h.runtime.resume_all() == []
            with pytest.raises((JournalDamaged, NotFound)):
                h.runtime.show("one", tenant="acme")
            assert {row.id for row in h.journal.runs()} == {"one", "two"}
            assert await h.work(spec(), tenant="acme")

    run(scenario())


class DamagedHarness:
    """A harness on a journal that is known to be damaged."""

    def __init__(self, path: pathlib.Path) -> None:
        self._made = Harness(path, [["done"]])

    async def __aenter__(self) -> Harness:
        return self._made

    async def __aexit__(self, *_: object) -> None:
        assert self._made.journal.check_integrity() != []
        await self._made.runtime.close()


def test_an_edited_tenant_shows_no_run_to_another(tmp_path: pathlib.Path) -> None:
    path = filled(tmp_path)
    tamper(path, "UPDATE runs SET tenant = 'bolt', goal = 'other' WHERE id = 'one'")

    async def scenario() -> None:
        async with DamagedHarness(tmp_path) as h:
            assert [row.id for row in h.runtime.list(tenant="bolt")] == ["two"]
            with pytest.raises(NotFound):
                h.runtime.show("one", tenant="bolt")
            assert h.runtime.show("one", tenant="acme").goal == "secret of acme"
            assert any("another tenant" in line for line in h.journal.check_integrity())

    run(scenario())


def test_an_effect_whose_row_was_cut_off_is_not_made_again(tmp_path: pathlib.Path) -> None:
    paid: list[int] = []

    async def scenario() -> None:
        never = asyncio.Event()
        async with harness(tmp_path, [[call("pay", amount=3)], ["on", never]], [payer(paid)]) as h:
            run_id = await h.runtime.start(spec(tools=("pay",)), "pay")
            async for record in h.runtime.events(run_id):
                if record.live:
                    break
            cut = next(r.sequence for r in h.records(run_id) if r.kind == "tool_intended")
        tamper(tmp_path / "journal.db", f"DELETE FROM events WHERE sequence >= {cut}")
        h = Harness(tmp_path, [["done"]], [payer(paid)])
        assert await h.runtime.resume_all() == []
        with pytest.raises(JournalDamaged, match="the end"):
            await h.runtime.resume(run_id)
        await h.runtime.close()

    run(scenario())
    assert paid == [3]


def test_a_journal_of_format_1_is_sealed_and_its_run_goes_on(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    db = sqlite3.connect(tmp_path / "journal.db")
    db.executescript(FORMAT_1.read_text())
    db.close()
    paid: list[int] = []

    async def scenario() -> None:
        async with harness(tmp_path, [["paid it"]], [payer(paid)]) as h:
            assert [row.status for row in h.journal.runs()] == ["running", "answered"]
            assert await h.runtime.resume_all() == [LEFT]
            assert (await h.runtime.wait(LEFT, tenant="acme")).answer == "paid it"
            assert h.runtime.show(ENDED, tenant="acme").answer == "paid it"

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert paid == []
    assert "format 1 is now 2: 2 runs are sealed" in caplog.text


def test_damage_of_format_1_is_not_sealed_over(tmp_path: pathlib.Path) -> None:
    db = sqlite3.connect(tmp_path / "journal.db")
    db.executescript(FORMAT_1.read_text())
    db.close()
    tamper(tmp_path / "journal.db", f"UPDATE events SET kind = 'run_ended' WHERE run_id = '{LEFT}'")
    journal = Journal(tmp_path / "journal.db")
    with pytest.raises(JournalDamaged):
        journal.read(LEFT)
    assert journal.read(ENDED)
    journal.close()


def test_a_journal_of_format_1_is_left_to_the_process_that_writes_it(tmp_path: pathlib.Path) -> None:
    db = sqlite3.connect(tmp_path / "journal.db")
    db.executescript(FORMAT_1.read_text())
    journal = Journal(tmp_path / "other.db")
    with db:
        db.execute("UPDATE runs SET owner = ? WHERE id = ?", (journal.owner, LEFT))
    journal.close()
    with pytest.raises(Conflict, match="stop that process"):
        Journal(tmp_path / "journal.db")
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    db.close()
