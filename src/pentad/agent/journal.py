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
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from pentad.agent import journal_format, part_store, prompt_store
from pentad.agent.events import Event, Record, RunEnded, RunStarted, is_durable
from pentad.agent.journal_store.base import Db, JournalStore, JournalUnavailable
from pentad.agent.journal_store.sqlite_file import SqliteFile
from pentad.agent.journal_view import JournalView, last_row
from pentad.agent.prompt_store import PromptRetention, PromptText
from pentad.agent.rows import EVENT_COLUMNS, no_run, project, to_row
from pentad.content import Media
from pentad.errors import Conflict, NotFound
from pentad.types import Clock, Span

T = TypeVar("T")
_PROBE_S = 2.0
_EXPIRE_S = 60.0
"""How often a journal that is written looks for prompts that are too old."""
Holder = Literal["free", "lost", "held"]
"""Who has a run: nobody else, a process that is gone, or another one that lives."""


class RunHeld(Conflict):
    """Another living process works on the run."""


class RunLost(Conflict):
    """The run was taken over: its process was believed dead."""


@dataclass(slots=True)
class _Append:
    run_id: str
    before: tuple[Record, ...]
    event: Event
    clock_s: float
    spans: tuple[Span, ...]
    prompt: PromptText | None
    parts: tuple[Media, ...]
    done: asyncio.Future[Record]
    loop: asyncio.AbstractEventLoop

    def settle(self, record: Record | None, error: BaseException | None) -> None:
        """Hands over what came of it, from the writer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop may have been closed meanwhile
            self.loop.call_soon_threadsafe(self._settle, record, error)

    def _settle(self, record: Record | None, error: BaseException | None) -> None:
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        elif record is not None:
            self.done.set_result(record)


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
                made = (*journal_format.INDEXES, *prompt_store.SCHEMA, *part_store.SCHEMA)
                store.lay_out(reader, made)
                prompt_store.expire(reader, wall(), retention)
                part_store.expire(reader, wall(), retention)
            self._opened = store.writer()
            undo.pop_all()
        super().__init__(store, reader, seal, retention=retention, wall=wall)
        self.clock, self._on_commit = clock, on_commit
        self.owner = store.owner
        self._tails: dict[str, tuple[int, bytes]] = {}
        self._ours: set[str] = set()
        self._doubts: dict[str, tuple[Sequence[Record], bytes]] = {}
        """By run, the records whose commit failed and the last digest; it may have happened all the same."""
        self._unheard: dict[str, list[Sequence[Record]]] = {}
        """By run, what had happened all the same, until whoever wrote it asks again."""
        self._watchers: dict[str | None, set[Callable[[Sequence[Record]], None]]] = {}
        self._expired_s = wall()
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
        prompt: PromptText | None = None,
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
        prompt: PromptText | None = None,
        parts: tuple[Media, ...] = (),
        before: tuple[Record, ...] = (),
    ) -> asyncio.Future[Record]:
        """What `append` waits for, for callers that must know what came of it even when cancelled.

        Args:
            before: records of the same run that are written in front, in the same transaction.
        """
        if self._closed:
            raise JournalUnavailable(f"journal {self.store.name!r} is closed")
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        item = _Append(run_id, before, event, self.clock(), tuple(spans), prompt, parts, done, loop)
        self._work.put(item)
        return done

    async def begin(self, records: Sequence[Record], copied_from: str) -> None:
        """Starts a run with several records at once, numbered from 1, and their prompts: all or nothing.

        Raises JournalUnavailable as `append` does.
        """

        def insert(db: Db) -> None:
            tail = b""
            for record in records:
                tail = self._insert(db, record, tail)
            last = records[-1]
            journal_format.name_last(db, self._seal, last.run_id, last.sequence, tail)
            prompt_store.copy(db, copied_from, records)
            part_store.copy(db, copied_from, records[0].run_id)

        await self._execute(insert)

    async def claim(self, run_id: str) -> None:
        """Makes this journal the only one to write the run, until it ends, is released or we die.

        Raises RunHeld when another living process has it, NotFound when there is no such run.
        """

        def take(db: Db) -> None:
            holder, owner = self._holder(db, run_id)
            if holder == "held":
                raise RunHeld(
                    f"run {run_id!r} is being worked on by process {owner.split(':')[0]}",
                    hint="stop that process first, or let it finish",
                )
            db.execute("UPDATE runs SET owner = ? WHERE id = ?", (self.owner, run_id))

        await self._execute(take)
        self._ours.add(run_id)

    async def held(self, run_id: str) -> Holder:
        """Who has the run. Raises NotFound when there is no such run."""
        return (await self._execute(lambda db: self._holder(db, run_id)))[0]

    def _holder(self, db: Db, run_id: str) -> tuple[Holder, str]:
        row = db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is None:
            raise no_run(run_id)
        owner = row[0] or self.owner
        if owner == self.owner:
            return "free", owner
        return "held" if self.store.alive(db, owner) else "lost", owner

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

    async def _execute(self, change: Callable[[Db], T]) -> T:
        done: Future[T] = Future()

        def run(db: Db) -> None:
            try:
                found = self._transact(db, change, exclusive=True)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(found)

        if self._closed:
            raise JournalUnavailable(f"journal {self.store.name!r} is closed")
        self._work.put(run)
        return await asyncio.shield(asyncio.wrap_future(done))

    def _write(self) -> None:
        db = self._opened
        while (item := self._next(db)) is not None:
            if not isinstance(item, _Append):
                item(db)
                continue
            try:
                records = self._commit(db, item)
            except BaseException as error:
                self._tails.pop(item.run_id, None)
                item.settle(None, error)
            else:
                # Followers first: what the caller does next must come after it for them too.
                for tell in self._watching(item.run_id):
                    tell(records)
                item.settle(records[-1], None)
        db.close()

    def _next(self, db: Db) -> _Append | Callable[[Db], object] | None:
        """What is to be written next; while there is nothing, the store is told that we live."""
        while True:
            try:
                return self._work.get(timeout=self.store.signs_of_life_s)
            except queue.Empty:
                with contextlib.suppress(JournalUnavailable), self.store.translated():
                    self.store.sign_of_life(db)

    def _commit(self, db: Db, item: _Append) -> Sequence[Record]:
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
        records, digest = (*item.before, record), tail
        if item.before:
            sequence += len(item.before)
            assert item.before[-1].sequence == sequence, "whoever numbers records has the run alone"
            record = replace(record, sequence=sequence + 1)
            records = (*item.before, record)

        def insert(db: Db) -> None:
            nonlocal digest
            if not first:
                self._check_ours(db, item.run_id)
            for each in records:
                digest = self._insert(db, each, digest)
            journal_format.name_last(db, self._seal, item.run_id, record.sequence, digest)
            if item.prompt is not None:
                prompt_store.keep(db, item.run_id, item.prompt, record.at_s)
            if item.parts:
                part_store.keep(db, item.run_id, item.parts, record.at_s)
            self._expire(db, record.at_s)

        try:
            self._transact(db, insert, durable=is_durable(item.event))
        except JournalUnavailable as error:
            if error.passing:
                self._doubts[item.run_id] = records, digest
            raise
        self._committed(record, digest)
        return records

    def _expire(self, db: Db, now_s: float) -> None:
        """Lets go of prompts and parts that are too old, now and then. In a transaction."""
        if not 0 <= now_s - self._expired_s < _EXPIRE_S:
            self._expired_s = now_s
            prompt_store.expire(db, now_s, self.retention)
            part_store.expire(db, now_s, self.retention)

    def _committed(self, record: Record, digest: bytes) -> None:
        if isinstance(record.event, RunEnded):
            self._tails.pop(record.run_id, None)
            self._unheard.pop(record.run_id, None)
            self._ours.discard(record.run_id)
            return
        self._tails[record.run_id] = (record.sequence, digest)
        if isinstance(record.event, RunStarted):
            self._ours.add(record.run_id)

    def _written(self, db: Db, item: _Append) -> Sequence[Record] | None:
        """The records of an event whose commit failed and had happened all the same, as a server's may."""
        doubt = self._doubts.get(item.run_id)
        if doubt is not None:
            # Whatever comes next, and from whom: once more has been written it could not be told.
            records, digest = doubt
            if self._happened(db, records[-1], digest):
                self._committed(records[-1], digest)
                self._unheard.setdefault(item.run_id, []).append(records)
            del self._doubts[item.run_id]
        unheard = self._unheard.get(item.run_id, [])
        found = next((records for records in unheard if records[-1].event == item.event), None)
        if found is not None:
            unheard.remove(found)
        return found

    def _happened(self, db: Db, record: Record, digest: bytes) -> bool:
        try:
            return self._last(db, record.run_id) == (record.sequence, digest)
        except NotFound:
            return False

    def _last(self, db: Db, run_id: str) -> tuple[int, bytes]:
        with self.store.translated(), self.store.snapshot(db):
            return last_row(db, self._seal, run_id)

    def _check_ours(self, db: Db, run_id: str) -> None:
        """Raises RunLost when a run that this process works on was taken over."""
        if run_id not in self._ours:
            return
        row = db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is not None and row[0] is not None and row[0] != self.owner:
            raise RunLost(
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
        return row[-1]

    def _transact(
        self,
        db: Db,
        change: Callable[[Db], T],
        *,
        durable: bool | None = None,
        exclusive: bool = False,
    ) -> T:
        try:
            with self.store.translated():
                if self._failed:
                    self.store.recover(db)
                with self.store.transaction(db, durable=durable, exclusive=exclusive):
                    found = change(db)
                    if self._on_commit:
                        self._on_commit("before")
                if self._on_commit:
                    self._on_commit("after")
        except JournalUnavailable as error:
            if error.passing:
                self._failed = error
            raise
        self._failed = None
        return found

    # following

    @contextlib.contextmanager
    def watch(self, run_id: str | None, tell: Callable[[Sequence[Record]], None]) -> Iterator[None]:
        """Passes the records of each commit of the run, or of all runs, to `tell`, in the writer's thread."""
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

    def _watching(self, run_id: str) -> list[Callable[[Sequence[Record]], None]]:
        with self._lock:
            return [*self._watchers.get(run_id, ()), *self._watchers.get(None, ())]

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
