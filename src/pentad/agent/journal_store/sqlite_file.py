"""SqliteFile: a journal in one file, for the processes of one machine."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import cast

from pentad.agent import journal_format, ownership, sqlite, usage_lock
from pentad.agent.journal_store.base import Db, JournalUnavailable
from pentad.agent.seal import Seal


class SqliteFile:
    """See JournalStore.

    Args:
        path: the file; its folder is made if it is not there.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.signs_of_life_s = None  # the system knows who lives
        self.owner = ownership.mine()
        self._in_use: int | None = None
        self._forced: bool | None = None
        """What the writer's connection was told last; no other one is told."""

    @property
    def name(self) -> str:
        return self.path.name

    def open(self) -> tuple[Db, Seal]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            in_use = usage_lock.share(self.path)
            undo.callback(os.close, in_use)
            db = sqlite.connect(self.path)
            undo.callback(db.close)
            with self.translated():
                seal = journal_format.prepare(db, self.path)
            undo.pop_all()
        self._in_use = in_use
        return db, seal

    def writer(self) -> Db:
        db = sqlite.connect(self.path)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
        return db

    @contextlib.contextmanager
    def transaction(self, db: Db, *, durable: bool | None = None, exclusive: bool = False) -> Iterator[None]:
        if durable is not None and durable is not self._forced:
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._forced = durable
        with sqlite.transaction(_own(db)):
            if exclusive:  # every transaction is, but those that ask for it may remove runs
                db.execute("PRAGMA defer_foreign_keys = ON")  # a run's line is removed before its events
            yield

    @contextlib.contextmanager
    def snapshot(self, db: Db) -> Iterator[None]:
        db.execute("BEGIN")
        try:
            yield
        finally:
            db.execute("ROLLBACK")

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        try:
            with sqlite.translated(self.path, JournalUnavailable):
                yield
        except JournalUnavailable as error:
            error.passing = error.passing or isinstance(error.__cause__, sqlite3.OperationalError)
            raise

    def sign_of_life(self, db: Db) -> None:
        """Nobody needs it."""

    def lay_out(self, db: Db, statements: Sequence[str]) -> None:
        for statement in statements:
            db.execute(statement)

    def recover(self, db: Db) -> None:
        # After a failed fsync the kernel may call lost pages clean; what was acknowledged is in the
        # log as we read it, so it is written and forced to the disk anew.
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def touch(self, db: Db) -> None:
        db.execute(f"PRAGMA user_version = {journal_format.VERSION}")

    def alive(self, db: Db, owner: str) -> bool:
        del db  # the system knows
        return ownership.alive(owner)

    def problems(self, db: Db) -> list[str]:
        return [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]

    def compact(self, db: Db) -> None:
        sqlite.compact(db, self.path)

    def close(self) -> None:
        if self._in_use is not None:
            os.close(self._in_use)
            self._in_use = None


def _own(db: Db) -> sqlite3.Connection:
    return cast(sqlite3.Connection, db)
