"""The tables of the memory file: laid out, opened, and rid of items without a trace."""

from __future__ import annotations

import contextlib
import pathlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any, cast

import apsw

from pentad.errors import Conflict, Unavailable
from pentad.model.terms import terms

_VERSION = 2
"""Since 2 the full-text index holds `terms` of the texts; a file of version 1 is indexed anew."""
_SCHEMA = """
CREATE TABLE items (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL, tenant TEXT NOT NULL, agent TEXT, kind TEXT NOT NULL,
  text TEXT NOT NULL, source TEXT NOT NULL, importance REAL NOT NULL, created_s REAL NOT NULL,
  expires_s REAL, UNIQUE (tenant, id)
) STRICT;
CREATE TABLE about (embedder TEXT NOT NULL, dimensions INTEGER NOT NULL) STRICT;
CREATE VIRTUAL TABLE words USING fts5(text, content='', contentless_delete=1, tokenize='porter unicode61');
"""


def open_file(path: pathlib.Path) -> apsw.Connection:
    """The database, laid out and with its extension; its owner's alone. Raises Conflict, apsw.Error."""
    import sqlite_vec

    path.parent.mkdir(parents=True, exist_ok=True)
    # apsw rather than sqlite3: many builds of Python cannot load SQLite extensions.
    db = apsw.Connection(str(path))
    db.set_busy_timeout(10_000)
    db.enable_load_extension(True)
    db.load_extension(sqlite_vec.loadable_path())
    db.enable_load_extension(False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA secure_delete = ON")
    with db:
        version = int(cast(Any, db.execute("PRAGMA user_version").fetchone())[0])
        if version == 0:
            db.execute(_SCHEMA)
            db.execute(f"PRAGMA user_version = {_VERSION}")
        elif version == 1:
            index_words(db)
            db.execute(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise Conflict(
                f"memory {path.name!r} has format {version}, this version writes {_VERSION}",
                hint="use the pentad that wrote it, or another file",
            )
    return db


def erase(db: apsw.Connection, numbers: Sequence[int]) -> None:
    """Removes items from the tables and both indexes. In a transaction.

    Neither index lets go by itself: sqlite-vec only marks a vector's place as free, and the words of a
    contentless FTS5 table stay in its segments until they are merged.
    """
    if not numbers:
        return
    for number in numbers:
        old = cast(
            Any, db.execute("SELECT length(embedding) FROM vectors WHERE number = ?", (number,)).fetchone()
        )
        if old:
            db.execute("UPDATE vectors SET embedding = ? WHERE number = ?", (bytes(old[0]), number))
        db.execute("DELETE FROM vectors WHERE number = ?", (number,))
        db.execute("DELETE FROM items WHERE number = ?", (number,))
    index_words(db)


def index_words(db: apsw.Connection) -> None:
    """Builds the full-text index anew from the items. In a transaction."""
    rows = [(number, terms(str(text))) for number, text in db.execute("SELECT number, text FROM items")]
    db.execute("INSERT INTO words (words) VALUES ('delete-all')")
    db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", rows)


def packed(vector: Sequence[float]) -> bytes:
    """A vector as sqlite-vec takes it."""
    return struct.pack(f"{len(vector)}f", *vector)


@contextlib.contextmanager
def translated(path: pathlib.Path) -> Iterator[None]:
    """Turns apsw's errors into Unavailable, naming the file."""
    try:
        yield
    except apsw.Error as error:
        raise Unavailable(
            f"memory {path.name!r} cannot be used: {error}",
            hint="check the disk's free space and the file's rights",
        ) from error
