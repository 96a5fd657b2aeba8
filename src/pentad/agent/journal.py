"""Journal: the append-only record of every run, in one SQLite file. Survives kill -9.

One thread writes; each append is one transaction and returns only once it is committed. Commits
that acknowledge a tool's effect are also forced to the disk (`synchronous=FULL`). Every row
carries a keyed digest chained over the run's rows, and each run's line names its last row, so damage,
edits and rows that are gone are noticed when it is read (`seal.py`, `journal_view.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pentad.agent import journal_format, ownership, part_store, prompt_store, usage_lock
from pentad.agent.events import Event, Record, RunEnded, RunStarted, is_durable
from pentad.agent.journal_view import JournalUnavailable, JournalView, last_row
from pentad.agent.prompt_store import PromptRetention
from pentad.agent.rows import EVENT_COLUMNS, no_run, project, to_row
from pentad.agent.sqlite import connect, transaction, translated
from pentad.content import Media
from pentad.errors import Conflict
from pentad.types import Clock, Span

_PROBE_S = 2.0


@dataclass(slots=True)
class _Append:
    run_id: str
    event: Event
    clock_s: float
    spans: tuple[Span, ...]
    prompt: str | None
    parts: tuple[Media, ...]
    done: Future[Record]


class Journal(JournalView):
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
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        retention = retention or PromptRetention()
        with contextlib.ExitStack() as undo:
            self._in_use = usage_lock.share(path)
            undo.callback(os.close, self._in_use)
            reader = connect(path)
            undo.callback(reader.close)
            with translated(path, JournalUnavailable):
                seal = journal_format.prepare(reader, path)
                with transaction(reader):
                    prompt_store.prepare(reader, wall(), retention)
                    part_store.prepare(reader, wall(), retention)
            undo.pop_all()
        super().__init__(path, reader, seal, retention=retention, wall=wall)
        self.clock, self._on_commit = clock, on_commit
        self.owner = ownership.mine()
        self._tails: dict[str, tuple[int, bytes]] = {}
        self._watchers: dict[str, set[Callable[[Record], None]]] = {}
        self._work: queue.SimpleQueue[_Append | Callable[[sqlite3.Connection], object] | None] = (
            queue.SimpleQueue()
        )
        self._closed = False
        self._failed: JournalUnavailable | None = None
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    # writing

    async def append(
        self,
        run_id: str,
        event: Event,
        spans: Sequence[Span] = (),
        *,
        prompt: str | None = None,
        parts: tuple[Media, ...] = (),
    ) -> Record:
        """The event as recorded, once committed; prompt and parts are kept with it, whatever the retention.

        Raises JournalUnavailable when it cannot be written (disk full, I/O error): then it did not happen.
        """
        # Shielded: what is queued is written even if the caller is cancelled, so no result is lost.
        return await asyncio.shield(self.queue(run_id, event, spans, prompt=prompt, parts=parts))

    def queue(
        self,
        run_id: str,
        event: Event,
        spans: Sequence[Span] = (),
        *,
        prompt: str | None = None,
        parts: tuple[Media, ...] = (),
    ) -> asyncio.Future[Record]:
        """What `append` waits for, for callers that must know what came of it even when cancelled."""
        item = _Append(run_id, event, self.clock(), tuple(spans), prompt, parts, Future())
        if self._closed:
            raise JournalUnavailable(f"journal {self.path.name!r} is closed")
        self._work.put(item)
        return asyncio.wrap_future(item.done)

    async def begin(self, records: Sequence[Record], copied_from: str) -> None:
        """Starts a run with several records at once, numbered from 1, and their prompts: all or nothing.

        Raises JournalUnavailable as `append` does.
        """

        def insert(db: sqlite3.Connection) -> None:
            tail = b""
            for record in records:
                tail = self._insert(db, record, tail)
            prompt_store.copy(db, copied_from, records)
            part_store.copy(db, copied_from, records[0].run_id)

        await self._execute(insert)

    async def claim(self, run_id: str) -> None:
        """Makes this journal the only one to write the run, until it ends, is released or we die.

        Raises Conflict when another living process has it, NotFound when there is no such run.
        """

        def take(db: sqlite3.Connection) -> None:
            row = db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                raise no_run(run_id)
            if row[0] is not None and row[0] != self.owner and ownership.alive(row[0]):
                raise Conflict(
                    f"run {run_id!r} is being worked on by process {row[0].split(':')[0]}",
                    hint="stop that process first, or let it finish",
                )
            db.execute("UPDATE runs SET owner = ? WHERE id = ?", (self.owner, run_id))

        await self._execute(take)

    async def trouble(self) -> str | None:
        """Why nothing can be written now; None when it can. After a failure it is tried again."""
        if self._failed is None:
            return None
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._execute(journal_format.touch)
        except TimeoutError:
            return f"{self.path.name!r} answers no write within {_PROBE_S:g} s"
        except JournalUnavailable as error:
            return str(error)
        return None

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
        first = isinstance(item.event, RunStarted)
        sequence, tail = (
            (0, b"") if first else self._tails.get(item.run_id) or last_row(db, self._seal, item.run_id)
        )
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
            if item.parts:
                part_store.keep(db, item.run_id, item.parts, record.at_s, self.retention)

        self._transact(db, insert)
        self._tails[item.run_id] = (record.sequence, digest)
        if isinstance(item.event, RunEnded):
            del self._tails[item.run_id]
        return record

    def _insert(self, db: sqlite3.Connection, record: Record, tail: bytes) -> bytes:
        """Writes one record behind the digest `tail`; its own digest."""
        row = to_row(record, tail, self._seal)
        project(db, record, self.owner)
        db.execute(
            f"INSERT INTO events (run_id, {EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (record.run_id, *row),
        )
        journal_format.name_last(db, self._seal, record.run_id, record.sequence, row[-1])
        return row[-1]

    def _transact(self, db: sqlite3.Connection, change: Callable[[sqlite3.Connection], object]) -> None:
        try:
            with translated(self.path, JournalUnavailable):
                if self._failed:
                    # After a failed fsync the kernel may call lost pages clean; what was acknowledged
                    # is in the log as we read it, so it is written and forced to the disk anew.
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                with transaction(db):
                    change(db)
                    if self._on_commit:
                        self._on_commit("before")
                if self._on_commit:
                    self._on_commit("after")
        except JournalUnavailable as error:
            if isinstance(error.__cause__, sqlite3.OperationalError):
                self._failed = error
            raise
        self._failed = None

    # following

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

    def close(self) -> None:
        """Finishes what is queued, gives all claims back and closes the file."""
        if self._closed:
            return
        self._closed = True
        self._work.put(lambda db: db.execute("UPDATE runs SET owner = NULL WHERE owner = ?", (self.owner,)))
        self._work.put(None)
        self._writer.join()
        self._reader.close()
        os.close(self._in_use)
