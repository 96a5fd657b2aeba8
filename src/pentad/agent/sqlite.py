"""The few habits that the agent's SQLite files share: explicit transactions, translated errors."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pentad.errors import Conflict, Unavailable

_PATIENCE_S = 10.0


def connect(path: pathlib.Path) -> sqlite3.Connection:
    """A connection in autocommit mode that any thread may use, one at a time."""
    with translated(path):
        db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    # A cell that is no UTF-8 is one bad row, not an error of the whole query.
    db.text_factory = lambda data: data.decode("utf-8", "replace")
    return db


def prepare(
    db: sqlite3.Connection,
    *,
    schema: tuple[str, ...],
    version: int,
    what: str,
    earlier: Mapping[int, Callable[[sqlite3.Connection], None]] | None = None,
) -> None:
    """Switches to WAL and lays out an empty file, or converts one of an `earlier` format.

    Raises Conflict for a file of another format.
    """
    db.execute("PRAGMA journal_mode = WAL")
    with transaction(db):
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found == version:
            return
        if found == 0:
            for statement in schema:
                db.execute(statement)
        elif earlier and found in earlier:
            earlier[found](db)
        else:
            raise Conflict(
                f"the {what} file has format {found}, this version writes {version}",
                hint="use the pentad that wrote it, or another --data-home",
            )
        db.execute(f"PRAGMA user_version = {version}")


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translated(path: pathlib.Path, kind: type[Unavailable] = Unavailable) -> Iterator[None]:
    """Turns SQLite's errors into `kind`, naming the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise kind(
            f"{path.name!r} cannot be used: {error}",
            hint="check the disk's free space and the file's rights",
        ) from error


def compact(db: Any, path: pathlib.Path) -> None:
    """Writes the file anew from what is in it, and empties its log. `db` is of sqlite3 or of apsw.

    `secure_delete` alone is not enough: pages that were split keep copies of rows that moved away.

    Raises Unavailable when a reader keeps the log for ten seconds.
    """
    db.execute("PRAGMA temp_store = MEMORY")  # a copy on the disk would be one more place with the text
    db.execute("VACUUM")
    until_s = time.monotonic() + _PATIENCE_S
    while db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > until_s:
            raise Unavailable(
                f"what was removed is still in the log of {path.name!r}, which another process reads",
                hint="it goes with the next removal, or when the last process that uses the file ends",
            )
        time.sleep(0.05)


def storable(text: str) -> str:
    """SQLite text is UTF-8: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode()
