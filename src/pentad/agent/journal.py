"""Journal: the append-only record of every run, in one SQLite file. Survives kill -9.

One thread writes; each append is one transaction and returns only once it is committed. Commits
that acknowledge a tool's effect are also forced to the disk (`synchronous=FULL`). Every row
carries a digest chained over the run's rows, so damage and edits are noticed when it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pentad.agent import ownership, prompt_store
from pentad.agent.events import UNFINISHED, Event, Record, RunEnded, RunStarted, is_durable
from pentad.agent.prompt_store import Prompt, PromptRetention
from pentad.agent.rows import EVENT_COLUMNS, JournalDamaged, RunRow, from_row, project, to_row
from pentad.agent.sqlite import connect, prepare, transaction, translated
from pentad.errors import Conflict, NotFound, Unavailable
from pentad.types import Clock, Span

_VERSION = 1
_SCHEMA = (
    """CREATE TABLE runs (
      id TEXT PRIMARY KEY, tenant TEXT NOT NULL, agent TEXT NOT NULL, goal TEXT NOT NULL,
      started_s REAL NOT NULL, ended_s REAL, status TEXT NOT NULL, owner TEXT
    ) STRICT""",
    "CREATE INDEX runs_by_tenant ON runs (tenant, started_s)",
    """CREATE TABLE events (
      run_id TEXT NOT NULL REFERENCES runs (id), sequence INTEGER NOT NULL, at_s REAL NOT NULL,
      clock_s REAL NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL, spans TEXT NOT NULL,
      digest BLOB NOT NULL, PRIMARY KEY (run_id, sequence)
    ) STRICT, WITHOUT ROWID""",
    "CREATE TRIGGER events_are_kept BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER events_are_final BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END",
)


class JournalUnavailable(Unavailable):
    """The journal cannot be written or read now; what was asked of it did not happen."""


@dataclass(slots=True)
class _Append:
    run_id: str
    event: Event
    clock_s: float
    spans: tuple[Span, ...]
    prompt: str | None
    done: Future[Record]


class Journal:
    """The runs and their events.

    Args:
        path: the SQLite file; its folder is made if it is not there.
        clock: monotonic instants for the rows; wall: seconds since 1970.
        retention: which prompts of model calls are kept, and for how long.
        on_commit: called with "before" and "after" around every commit, in the writer's thread;
            a fault drill kills the process there.
    """

    def __init__(
        self,
        path: pathlib.Path | str,
        *,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        retention: PromptRetention | None = None,
        on_commit: Callable[[str], None] | None = None,
    ) -> None:
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._clock, self._wall, self._on_commit = clock, wall, on_commit
        self.retention = retention or PromptRetention()
        self.owner = ownership.mine()
        self._tails: dict[str, tuple[int, bytes]] = {}
        self._watchers: dict[str, set[Callable[[Record], None]]] = {}
        self._lock = threading.Lock()
        self._reader = connect(self.path)
        self._work: queue.SimpleQueue[_Append | Callable[[sqlite3.Connection], object] | None] = (
            queue.SimpleQueue()
        )
        self._closed = False
        with translated(self.path, JournalUnavailable):
            prepare(self._reader, schema=_SCHEMA, version=_VERSION, what="journal")
            with transaction(self._reader):
                prompt_store.prepare(self._reader, self._wall(), self.retention)
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    # writing

    async def append(
        self, run_id: str, event: Event, spans: Sequence[Span] = (), *, prompt: str | None = None
    ) -> Record:
        """The event as recorded, once committed. `prompt` is kept with it, whatever the retention says.

        Raises JournalUnavailable when it cannot be written (disk full, I/O error): then it did not happen.
        """
        item = _Append(run_id, event, self._clock(), tuple(spans), prompt, Future())
        if self._closed:
            raise JournalUnavailable(f"journal {self.path.name!r} is closed")
        self._work.put(item)
        # Shielded: what is queued is written even if the caller is cancelled, so no result is lost.
        return await asyncio.shield(asyncio.wrap_future(item.done))

    async def begin(self, records: Sequence[Record], copied_from: str) -> None:
        """Starts a run with several records at once, numbered from 1, and their prompts: all or nothing.

        Raises JournalUnavailable as `append` does.
        """

        def insert(db: sqlite3.Connection) -> None:
            tail = b""
            for record in records:
                tail = self._insert(db, record, tail)
            prompt_store.copy(db, copied_from, records)

        await self._execute(insert)

    async def claim(self, run_id: str) -> None:
        """Makes this journal the only one to write the run, until it ends, is released or we die.

        Raises Conflict when another living process has it, NotFound when there is no such run.
        """

        def take(db: sqlite3.Connection) -> None:
            row = db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                raise NotFound(f"no run {run_id!r}")
            if row[0] is not None and row[0] != self.owner and ownership.alive(row[0]):
                raise Conflict(
                    f"run {run_id!r} is being worked on by process {row[0].split(':')[0]}",
                    hint="stop that process first, or let it finish",
                )
            db.execute("UPDATE runs SET owner = ? WHERE id = ?", (self.owner, run_id))

        await self._execute(take)

    async def _execute(self, change: Callable[[sqlite3.Connection], object]) -> None:
        done: Future[None] = Future()

        def run(db: sqlite3.Connection) -> None:
            try:
                self._transact(db, change)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        if self._closed:
            raise JournalUnavailable(f"journal {self.path.name!r} is closed")
        self._work.put(run)
        await asyncio.shield(asyncio.wrap_future(done))

    def _write(self) -> None:
        db = connect(self.path)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
        while (item := self._work.get()) is not None:
            if not isinstance(item, _Append):
                item(db)
                continue
            try:
                record = self._commit(db, item)
            except BaseException as error:
                self._tails.pop(item.run_id, None)
                item.done.set_exception(error)
            else:
                # Followers first: what the caller does next must come after it for them too.
                for tell in self._watching(item.run_id):
                    tell(record)
                item.done.set_result(record)
        db.close()

    def _commit(self, db: sqlite3.Connection, item: _Append) -> Record:
        sequence, tail = self._tails.get(item.run_id) or self._tail(db, item.run_id)
        record = Record(
            run_id=item.run_id,
            sequence=sequence + 1,
            at_s=self._wall(),
            clock_s=item.clock_s,
            event=item.event,
            spans=item.spans,
        )
        db.execute(f"PRAGMA synchronous = {'FULL' if is_durable(item.event) else 'NORMAL'}")
        digest = tail

        def insert(db: sqlite3.Connection) -> None:
            nonlocal digest
            digest = self._insert(db, record, tail)
            if item.prompt is not None:
                prompt_store.keep(db, item.run_id, item.prompt, record.at_s, self.retention)

        self._transact(db, insert)
        self._tails[item.run_id] = (record.sequence, digest)
        if isinstance(item.event, RunEnded):
            del self._tails[item.run_id]
        return record

    def _insert(self, db: sqlite3.Connection, record: Record, tail: bytes) -> bytes:
        """Writes one record behind the digest `tail`; its own digest."""
        row = to_row(record, tail)
        project(db, record, self.owner)
        db.execute(
            f"INSERT INTO events (run_id, {EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (record.run_id, *row),
        )
        return row[-1]

    def _transact(self, db: sqlite3.Connection, change: Callable[[sqlite3.Connection], object]) -> None:
        with translated(self.path, JournalUnavailable):
            with transaction(db):
                change(db)
                if self._on_commit:
                    self._on_commit("before")
            if self._on_commit:
                self._on_commit("after")

    def _tail(self, db: sqlite3.Connection, run_id: str) -> tuple[int, bytes]:
        row = db.execute(
            "SELECT sequence, digest FROM events WHERE run_id = ? ORDER BY sequence DESC LIMIT 1", (run_id,)
        ).fetchone()
        return (row[0], row[1]) if row else (0, b"")

    # reading

    def read(self, run_id: str, after: int = 0) -> list[Record]:
        """The run's records with a sequence above `after`, checked against the digest chain.

        Raises NotFound for no such run, JournalDamaged for a row that no journal wrote.
        """
        with self._lock, translated(self.path, JournalUnavailable):
            if not self._reader.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone():
                raise NotFound(f"no run {run_id!r}")
            rows = self._reader.execute(
                f"SELECT {EVENT_COLUMNS} FROM events WHERE run_id = ? AND sequence >= ? ORDER BY sequence",
                (run_id, after),
            ).fetchall()
        records, tail = [], b""
        if after and rows:
            tail = bytes(rows.pop(0)[-1])
        for number, row in enumerate(rows, after + 1):
            record = from_row(run_id, number, row, tail)
            records.append(record)
            tail = bytes(row[-1])
        return records

    def prompts(self, run_id: str) -> list[Prompt]:
        """What the run's model calls were asked, in order. Raises NotFound, JournalDamaged."""
        records = self.read(run_id)
        with self._lock, translated(self.path, JournalUnavailable):
            return prompt_store.prompts(self._reader, records, self._wall(), self.retention)

    def run(self, run_id: str) -> RunRow:
        """The run's line. Raises NotFound."""
        rows = self.runs(where="id = ?", values=(run_id,))
        if not rows:
            raise NotFound(f"no run {run_id!r}")
        return rows[0]

    def earlier(self, row: RunRow, limit: int = 8) -> list[list[Record]]:
        """The records of the tenant's runs that began last before `row`; damaged ones are left out."""
        before = self.runs(
            where="tenant = ? AND started_s < ?", values=(row.tenant, row.started_s), limit=limit
        )
        found = []
        for one in before:
            with contextlib.suppress(JournalDamaged):
                found.append(self.read(one.id))
        return found

    def runs(self, *, where: str = "1", values: Sequence[object] = (), limit: int = -1) -> list[RunRow]:
        """Runs, newest first. `where` is our own SQL, never a user's; values are bound."""
        columns = "id, tenant, agent, goal, started_s, ended_s, status"
        with self._lock, translated(self.path, JournalUnavailable):
            rows = self._reader.execute(
                f"SELECT {columns} FROM runs WHERE {where} ORDER BY started_s DESC, id LIMIT ?",
                (*values, limit),
            ).fetchall()
        names = columns.split(", ")
        return [RunRow(**dict(zip(names, row, strict=True))) for row in rows]

    @contextlib.contextmanager
    def watch(self, run_id: str, tell: Callable[[Record], None]) -> Iterator[None]:
        """Passes every record of the run to `tell`, in the writer's thread, once it is committed."""
        with self._lock:
            self._watchers.setdefault(run_id, set()).add(tell)
        try:
            yield
        finally:
            with self._lock:
                watchers = self._watchers[run_id]
                watchers.discard(tell)
                if not watchers:
                    del self._watchers[run_id]

    def _watching(self, run_id: str) -> list[Callable[[Record], None]]:
        with self._lock:
            return list(self._watchers.get(run_id, ()))

    def check_integrity(self) -> list[str]:
        """What is wrong with the file, line by line; empty when it is sound. Reads everything."""
        with self._lock, translated(self.path, JournalUnavailable):
            problems = [row[0] for row in self._reader.execute("PRAGMA integrity_check") if row[0] != "ok"]
        for row in self.runs():
            try:
                records = self.read(row.id)
            except JournalDamaged as error:
                problems.append(str(error))
                continue
            first, last = records[0].event, records[-1].event
            status = last.status if isinstance(last, RunEnded) else "not ended"
            agree = status == row.status or (status == "not ended" and row.status in UNFINISHED)
            if not isinstance(first, RunStarted) or first.tenant != row.tenant or not agree:
                problems.append(f"run {row.id!r} is listed as {row.status}, its events say {status}")
            if sum(isinstance(r.event, RunStarted | RunEnded) for r in records) > 2:
                problems.append(f"run {row.id!r} starts or ends more than once")
        return problems

    def close(self) -> None:
        """Finishes what is queued, gives all claims back and closes the file."""
        if self._closed:
            return
        self._closed = True
        self._work.put(lambda db: db.execute("UPDATE runs SET owner = NULL WHERE owner = ?", (self.owner,)))
        self._work.put(None)
        self._writer.join()
        self._reader.close()
