"""Journal: the append-only record of every run, in one database. Survives kill -9.

One thread writes; each append is one transaction and returns only once it is committed. Commits
that acknowledge a tool's effect are also forced to the disk. Every row
carries a keyed digest chained over the run's rows, and each run's line names its last row, so damage,
edits and rows that are gone are noticed when it is read (`seal.py`, `journal_view.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pentad.agent import journal_format, part_store, prompt_store
from pentad.agent.events import Event, Record, RunEnded, RunStarted, is_durable
from pentad.agent.journal_store.base import Db, JournalStore, JournalUnavailable
from pentad.agent.journal_store.sqlite_file import SqliteFile
from pentad.agent.journal_view import JournalView, last_row
from pentad.agent.prompt_store import PromptRetention
from pentad.agent.rows import EVENT_COLUMNS, no_run, project, to_row
from pentad.content import Media
from pentad.errors import Conflict, NotFound
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
        where: the database, or the path of a SQLite file.
        clock: monotonic instants for the rows; wall: seconds since 1970.
        retention: which prompts of model calls are kept, and for how long.
        on_commit: called with "before" and "after" around every commit, in the writer's thread;
            a fault drill kills the process there.
    """

    def __init__(
        self,
        where: JournalStore | pathlib.Path | str,
        *,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        retention: PromptRetention | None = None,
        on_commit: Callable[[str], None] | None = None,
    ) -> None:
        store = SqliteFile(pathlib.Path(where)) if isinstance(where, str | pathlib.Path) else where
        retention = retention or PromptRetention()
        with contextlib.ExitStack() as undo:
            reader, seal = store.open()
            undo.callback(store.close)
            undo.callback(reader.close)
            with store.translated(), store.transaction(reader, exclusive=True):
                store.lay_out(reader, (*prompt_store.SCHEMA, *part_store.SCHEMA))
                prompt_store.expire(reader, wall(), retention)
                part_store.expire(reader, wall(), retention)
            self._opened = store.writer()
            undo.pop_all()
        super().__init__(store, reader, seal, retention=retention, wall=wall)
        self.clock, self._on_commit = clock, on_commit
        self.owner = store.owner
        self._tails: dict[str, tuple[int, bytes]] = {}
        self._ours: set[str] = set()
        self._doubts: dict[str, tuple[Event, Record, bytes]] = {}
        self._watchers: dict[str, set[Callable[[Record], None]]] = {}
        self._work: queue.SimpleQueue[_Append | Callable[[Db], object] | None] = queue.SimpleQueue()
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
            raise JournalUnavailable(f"journal {self.store.name!r} is closed")
        self._work.put(item)
        return asyncio.wrap_future(item.done)

    async def begin(self, records: Sequence[Record], copied_from: str) -> None:
        """Starts a run with several records at once, numbered from 1, and their prompts: all or nothing.

        Raises JournalUnavailable as `append` does.
        """

        def insert(db: Db) -> None:
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

        def take(db: Db) -> None:
            row = db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                raise no_run(run_id)
            if row[0] is not None and row[0] != self.owner and self.store.alive(db, row[0]):
                raise Conflict(
                    f"run {run_id!r} is being worked on by process {row[0].split(':')[0]}",
                    hint="stop that process first, or let it finish",
                )
            db.execute("UPDATE runs SET owner = ? WHERE id = ?", (self.owner, run_id))

        await self._execute(take)
        self._ours.add(run_id)

    async def trouble(self) -> str | None:
        """Why nothing can be written now; None when it can. After a failure it is tried again."""
        if self._failed is None:
            return None
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._execute(self.store.touch)
        except TimeoutError:
            return f"{self.store.name!r} answers no write within {_PROBE_S:g} s"
        except JournalUnavailable as error:
            return str(error)
        return None

    async def _execute(self, change: Callable[[Db], object]) -> None:
        done: Future[None] = Future()

        def run(db: Db) -> None:
            try:
                self._transact(db, change, exclusive=True)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        if self._closed:
            raise JournalUnavailable(f"journal {self.store.name!r} is closed")
        self._work.put(run)
        await asyncio.shield(asyncio.wrap_future(done))

    def _write(self) -> None:
        db = self._opened
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

    def _commit(self, db: Db, item: _Append) -> Record:
        first = isinstance(item.event, RunStarted)
        if (written := self._written(db, item)) is not None:
            return written
        sequence, tail = (0, b"") if first else self._tails.get(item.run_id) or self._last(db, item.run_id)
        record = Record(
            run_id=item.run_id,
            sequence=sequence + 1,
            at_s=self._wall(),
            clock_s=item.clock_s,
            event=item.event,
            spans=item.spans,
        )
        digest = tail

        def insert(db: Db) -> None:
            nonlocal digest
            if not first:
                self._check_ours(db, item.run_id)
            digest = self._insert(db, record, tail)
            if item.prompt is not None:
                prompt_store.keep(db, item.run_id, item.prompt, record.at_s, self.retention)
            if item.parts:
                part_store.keep(db, item.run_id, item.parts, record.at_s, self.retention)

        try:
            self._transact(db, insert, durable=is_durable(item.event))
        except JournalUnavailable as error:
            if error.passing:
                self._doubts[item.run_id] = item.event, record, digest
            raise
        self._committed(record, digest)
        return record

    def _committed(self, record: Record, digest: bytes) -> None:
        if isinstance(record.event, RunEnded):
            self._tails.pop(record.run_id, None)
            self._ours.discard(record.run_id)
            return
        self._tails[record.run_id] = (record.sequence, digest)
        if isinstance(record.event, RunStarted):
            self._ours.add(record.run_id)

    def _written(self, db: Db, item: _Append) -> Record | None:
        """The record of an event whose commit failed and had happened all the same, as a server's may."""
        event, record, digest = self._doubts.pop(item.run_id, (None, None, b""))
        if record is None or event != item.event:
            return None
        try:
            if self._last(db, item.run_id) != (record.sequence, digest):
                return None
        except NotFound:
            return None
        except JournalUnavailable:
            self._doubts[item.run_id] = event, record, digest
            raise
        self._committed(record, digest)
        return record

    def _last(self, db: Db, run_id: str) -> tuple[int, bytes]:
        with self.store.translated(), self.store.snapshot(db):
            return last_row(db, self._seal, run_id)

    def _check_ours(self, db: Db, run_id: str) -> None:
        """Raises Conflict when a run that this process works on was taken over: it was believed dead."""
        if run_id not in self._ours:
            return
        row = db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is not None and row[0] is not None and row[0] != self.owner:
            raise Conflict(
                f"run {run_id!r} was taken over by process {row[0].split(':')[0]}",
                hint="it goes on there",
            )

    def _insert(self, db: Db, record: Record, tail: bytes) -> bytes:
        """Writes one record behind the digest `tail`; its own digest."""
        row = to_row(record, tail, self._seal)
        project(db, record, self.owner)
        db.execute(
            f"INSERT INTO events (run_id, {EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (record.run_id, *row),
        )
        journal_format.name_last(db, self._seal, record.run_id, record.sequence, row[-1])
        return row[-1]

    def _transact(
        self,
        db: Db,
        change: Callable[[Db], object],
        *,
        durable: bool | None = None,
        exclusive: bool = False,
    ) -> None:
        try:
            with self.store.translated():
                if self._failed:
                    self.store.recover(db)
                with self.store.transaction(db, durable=durable, exclusive=exclusive):
                    change(db)
                    if self._on_commit:
                        self._on_commit("before")
                if self._on_commit:
                    self._on_commit("after")
        except JournalUnavailable as error:
            if error.passing:
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
        self._work.put(self._release)
        self._work.put(None)
        self._writer.join()
        self._reader.close()
        self.store.close()

    def _release(self, db: Db) -> None:
        # A journal that cannot be written keeps the claims; with this process they are void.
        with (
            contextlib.suppress(JournalUnavailable),
            self.store.translated(),
            self.store.transaction(db, exclusive=True),
        ):
            db.execute("UPDATE runs SET owner = NULL WHERE owner = ?", (self.owner,))
