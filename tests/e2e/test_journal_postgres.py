"""The journal in a real PostgreSQL server: what the file promises, between processes, and when it dies."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg
import pytest
from agent_kill_drill import in_schema

from agent_support import spec
from pentad.agent.codec import encode
from pentad.agent.erasure import remove_runs
from pentad.agent.events import RunEnded, RunStarted, StepEnded
from pentad.agent.journal import Journal
from pentad.agent.journal_store.base import JournalUnavailable
from pentad.agent.journal_store.postgres import PostgresStore
from pentad.agent.prompt_store import PromptText
from pentad.agent.rows import JournalDamaged
from pentad.agent.runtime import AgentRuntime
from pentad.agent.seal import key_path
from pentad.agent.tool_events import ToolReturned
from pentad.application.config import Settings
from pentad.content import Media
from pentad.errors import Conflict, InvalidRequest, NotFound
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from postgres_server import PostgresServer, disturbed, postgres

HERE = pathlib.Path(__file__).parent
STARTED = RunStarted(agent=encode(spec()), goal="goal \0 \ud800", tenant="t")
IMAGE = Media(
    kind="image",
    media_type="image/png",
    sha256=hashlib.sha256(b"\0\x01png").hexdigest(),
    size_bytes=5,
    data=b"\0\x01png",
)
_schemas = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as running:
        yield running


@pytest.fixture
def store(server: PostgresServer, tmp_path: pathlib.Path) -> PostgresStore:
    return in_schema(server.url, f"one_{next(_schemas)}", tmp_path / "journal")


def again(store: PostgresStore, key_at: pathlib.Path | None = None) -> PostgresStore:
    """The same journal as another process sees it."""
    return PostgresStore(store._url, key_at or store._key_at)


def returned(content: str) -> ToolReturned:
    return ToolReturned(step=1, index=0, call_id="c", tool="t", status="ok", content=content)


def test_what_was_written_is_read_by_another_process(store: PostgresStore) -> None:
    async def write(journal: Journal) -> None:
        await journal.append("r", STARTED, parts=(IMAGE,))
        await journal.append(
            "r", returned("nul \0 surrogate \ud800 \U0001f600"), prompt=PromptText.of("asked \0 this")
        )
        await journal.append("r", RunEnded(status="answered", answer="yes"))
        await journal.append("q", STARTED)

    first = Journal(store)
    asyncio.run(write(first))
    second = Journal(again(store))
    assert second.read("r") == first.read("r")
    assert second.read("r")[1].event == returned("nul \0 surrogate \ud800 \U0001f600")
    assert [(row.id, row.status) for row in second.runs(tenant="t")] == [("q", "running"), ("r", "answered")]
    assert second.runs(tenant="u") == []
    assert [row.id for row in second.unfinished()] == ["q"]
    assert second.part("r", IMAGE.sha256) == IMAGE.data
    with pytest.raises(NotFound):
        second.read("s")
    assert second.check_integrity() == []
    first.close()
    second.close()


def test_a_run_belongs_to_one_living_process_wherever_it_is(store: PostgresStore) -> None:
    code = (
        "import asyncio, pathlib, sys\n"
        "from pentad.agent.events import RunStarted\n"
        "from pentad.agent.journal import Journal\n"
        "from pentad.agent.journal_store.postgres import PostgresStore\n"
        "j = Journal(PostgresStore(sys.argv[1], pathlib.Path(sys.argv[2])))\n"
        "asyncio.run(j.append('r', RunStarted(agent={}, goal='g', tenant='t')))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", code, store._url, str(store._key_at)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        journal = Journal(store)
        with pytest.raises(Conflict, match=f"process {process.pid}@"):
            asyncio.run(journal.claim("r"))
        with pytest.raises(Conflict, match="is being worked on"):
            remove_runs(journal.store, ["r"])
        process.kill()
    deadline_s = time.monotonic() + 10
    while True:  # until the server has noticed
        try:
            asyncio.run(journal.claim("r"))
            break
        except Conflict:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    asyncio.run(journal.append("r", StepEnded(step=1, outcome="called_tools")))
    assert [r.kind for r in journal.read("r")] == ["run_started", "step_ended"]
    journal.close()


def test_who_was_believed_dead_writes_no_more_to_a_run_that_was_taken_over(store: PostgresStore) -> None:
    async def both() -> None:
        lost, heir = Journal(store), Journal(again(store))
        await lost.append("r", STARTED)
        with psycopg.connect(store._url, autocommit=True) as db:  # its session dies, and it does not notice
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                "AND (classid::bigint << 32 | objid::bigint) = %s",
                (_lock(lost.owner),),
            )
        await heir.claim("r")
        await heir.append("r", StepEnded(step=1, outcome="called_tools"))
        answers: list[str] = []
        for _ in range(3):
            try:
                await lost.append("r", returned("late"))
            except JournalUnavailable as error:  # the session is made anew first
                answers.append(f"passing: {error.passing}")
            except Conflict as error:
                answers.append(error.message)
        assert len(answers) == 3
        assert all("was taken over" in answer or answer == "passing: True" for answer in answers)
        assert "was taken over" in answers[-1]
        await heir.append("r", RunEnded(status="answered", answer="yes"))
        assert [r.kind for r in heir.read("r")] == ["run_started", "step_ended", "run_ended"]
        lost.close()
        heir.close()

    asyncio.run(both())


def test_a_run_whose_dead_process_the_server_still_believes_in_is_taken_up_once_it_does_not(
    store: PostgresStore, tmp_path: pathlib.Path
) -> None:
    """A killed process's session outlives it by an instant: its machine is lost, or the server is busy."""
    dead = "4711@elsewhere:abcd"

    async def scenario() -> None:
        journal = Journal(store)
        await journal.append("r", RunStarted(agent=encode(spec()), goal="go on", tenant="default"))
        runtime = AgentRuntime(ModelService({"m": ScriptedBackend([["done"]])}, router=Fixed()), journal)
        with psycopg.connect(store._url, autocommit=True) as session:
            session.execute("SELECT pg_advisory_lock(%s)", (_lock(dead),))
            session.execute("UPDATE runs SET owner = %s", (dead,))
            assert await runtime.resume_all() == []
        async with asyncio.timeout(10):
            assert (await runtime.wait("r")).answer == "done"
        await runtime.close()

    asyncio.run(scenario())


def test_a_process_with_nothing_to_write_lives_on_when_the_server_is_started_anew(
    store: PostgresStore,
) -> None:
    journal = Journal(store)
    asyncio.run(journal.append("r", STARTED))
    with psycopg.connect(store._url, autocommit=True) as db:  # what it held goes with its session
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
            "AND (classid::bigint << 32 | objid::bigint) = %s",
            (_lock(journal.owner),),
        )
        until_s = time.monotonic() + 10
        while db.execute("SELECT pg_try_advisory_lock(%s)", (_lock(journal.owner),)).fetchone() == (True,):
            db.execute("SELECT pg_advisory_unlock_all()")
            assert time.monotonic() < until_s
            time.sleep(0.1)
    heir = Journal(again(store))
    assert asyncio.run(heir.held("r")) == "held"
    heir.close()
    journal.close()


def _lock(owner: str) -> int:
    from pentad.agent.journal_store.postgres import _lock_of

    return _lock_of(owner)


def test_rows_can_not_be_changed_and_a_forged_one_is_noticed(store: PostgresStore) -> None:
    journal = Journal(store)
    asyncio.run(journal.append("r", STARTED))
    with psycopg.connect(store._url, autocommit=True) as db:
        for change in ("UPDATE events SET payload = '{}'", "DELETE FROM events"):
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                db.execute(change.encode())
        db.execute("SET session_replication_role = replica")  # what only a superuser may
        db.execute("UPDATE events SET at_s = at_s + 1")
    with pytest.raises(JournalDamaged):
        journal.read("r")
    assert [row.status for row in journal.runs()] == ["damaged"]
    journal.close()


def test_a_removed_run_is_gone_and_what_another_one_asked_too_stays(store: PostgresStore) -> None:
    async def write() -> None:
        for run_id in ("r", "q"):
            await journal.append(run_id, STARTED)
            await journal.append(run_id, returned("x"), prompt=PromptText.of("shared"))
            await journal.append(run_id, RunEnded(status="answered", answer=f"secret of {run_id}"))

    journal = Journal(store)
    asyncio.run(write())
    remove_runs(journal.store, ["r"])
    assert [row.id for row in journal.runs()] == ["q"]
    with psycopg.connect(store._url) as db:
        counts = [
            db.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
            for table in ("runs", "events", "prompt_texts", "prompt_uses")
        ]
    assert counts == [(1,), (3,), (1,), (1,)]
    assert journal.check_integrity() == []
    journal.close()


def test_a_machine_needs_the_key_of_the_journal(store: PostgresStore, tmp_path: pathlib.Path) -> None:
    Journal(store).close()
    other = tmp_path / "other" / "journal"
    other.parent.mkdir()
    with pytest.raises(Conflict, match="is missing"):
        Journal(again(store, other))
    key_path(other).write_bytes(b"k" * 32)
    with pytest.raises(Conflict, match="is not that of the journal") as refused:
        Journal(again(store, other))
    assert "copy the key" in (refused.value.hint or "")
    key_path(other).write_bytes(key_path(store._key_at).read_bytes())
    Journal(again(store, other)).close()


def test_errors_name_the_server_and_never_the_password(tmp_path: pathlib.Path) -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/none"
    with pytest.raises(JournalUnavailable, match=r"PostgreSQL 127\.0\.0\.1/none") as unavailable:
        Journal(PostgresStore(url, tmp_path / "journal"))
    with pytest.raises(InvalidRequest, match="no connection string") as invalid:
        PostgresStore("hunter2", tmp_path / "journal")
    assert "hunter2" not in str(unavailable.value)
    assert invalid.value.param == "journal"
    shown = Settings(journal=url).shown()["journal"]
    assert shown == "postgresql://me:***@127.0.0.1:1/none"
    shown = Settings(journal="host=h password='a b' dbname=d").shown()["journal"]
    assert shown == "host=h password=*** dbname=d"


def test_a_commit_whose_answer_was_lost_is_not_written_twice(
    server: PostgresServer, tmp_path: pathlib.Path
) -> None:
    """The server dies between the commit and its answer; the writer tries again until it succeeds."""
    store = in_schema(server.url, f"one_{next(_schemas)}", tmp_path / "journal")
    commits = 0

    def on_commit(moment: str) -> None:
        nonlocal commits
        commits += moment == "after"
        if moment == "after" and commits == 3:  # committed, but the writer does not learn it
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    lost: list[ToolReturned] = []

    async def insist(journal: Journal, event: ToolReturned) -> int:
        while True:
            try:
                return (await journal.append("r", event)).sequence
            except JournalUnavailable:
                lost.append(event)

    async def write() -> list[int]:
        journal = Journal(store, on_commit=on_commit)
        await journal.append("r", STARTED)
        numbers = [await insist(journal, returned(str(i))) for i in range(4)]
        journal.close()
        return numbers

    assert asyncio.run(write()) == [2, 3, 4, 5]
    assert lost == [returned("1")]
    journal = Journal(again(store))
    assert [r.sequence for r in journal.read("r")] == [1, 2, 3, 4, 5]
    assert journal.check_integrity() == []
    journal.close()


def drilled(server: PostgresServer, folder: pathlib.Path, cases: int, seed: int) -> list[dict[str, object]]:
    """What came of runs whose process is killed at random instants, the server too now and then."""
    words = [sys.executable, str(HERE / "agent_kill_drill.py"), str(folder), str(cases), str(seed)]
    with disturbed(server, seed, every_s=(1.0, 4.0)) as kills:
        ended = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=30 * cases,
            env={**os.environ, "OMP_NUM_THREADS": "1", "DRILL_POSTGRES": server.url},
            check=False,
        )
    assert ended.returncode == 0, ended.stderr[-2000:]
    _, *found = [json.loads(line) for line in ended.stdout.splitlines()]
    print(f"{sum(case['killed'] for case in found)} kills in {cases} cases, {kills()} of the server")
    assert kills() > 0
    return found


def check_ledger(cases: list[dict[str, object]]) -> None:
    for case in cases:
        assert case["statuses"] in (["answered"], []), case
        assert case["problems"] == [], case
        assert case["unapproved"] == 0, case
        assert case["keyed"] == ([0, 3, 100] if case["statuses"] else []), case
        unkeyed = case["unkeyed"]
        assert isinstance(unkeyed, list)
        assert len(set(unkeyed)) == len(unkeyed), case
        if case["statuses"]:
            assert 2 - len(unkeyed) <= int(str(case["told_unknown"])), case


@pytest.mark.slow
def test_effects_happen_once_while_processes_and_the_server_are_killed(
    server: PostgresServer, tmp_path: pathlib.Path
) -> None:
    check_ledger(drilled(server, tmp_path, cases=12, seed=3))


@pytest.mark.slow
def test_effects_happen_once_over_200_cases_of_killed_processes_and_servers(
    server: PostgresServer, tmp_path: pathlib.Path
) -> None:
    check_ledger(drilled(server, tmp_path, cases=200, seed=5))
