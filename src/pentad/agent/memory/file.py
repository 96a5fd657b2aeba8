"""The tables of the memory file: laid out, opened, filled, and rid of items without a trace."""

from __future__ import annotations

import contextlib
import json
import pathlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any, cast

import apsw

from pentad.agent.memory.base import Item, Scope
from pentad.agent.memory.lineage import Link, all_there, lineage
from pentad.agent.sqlite import compact
from pentad.errors import Conflict, Unavailable
from pentad.json_text import parse_json
from pentad.model.terms import terms

_VERSION = 3
"""Since 2 the full-text index holds `terms` of the texts; since 3 items say what they were made of."""
_SCHEMA = """
CREATE TABLE items (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL, tenant TEXT NOT NULL, agent TEXT, kind TEXT NOT NULL,
  text TEXT NOT NULL, source TEXT NOT NULL, importance REAL NOT NULL, created_s REAL NOT NULL,
  expires_s REAL, derived_from TEXT NOT NULL DEFAULT '[]', superseded_by TEXT,
  details TEXT NOT NULL DEFAULT '{}', UNIQUE (tenant, id)
) STRICT;
CREATE TABLE about (embedder TEXT NOT NULL, dimensions INTEGER NOT NULL) STRICT;
CREATE VIRTUAL TABLE words USING fts5(text, content='', contentless_delete=1, tokenize='porter unicode61');
"""
_SINCE_3 = (
    "derived_from TEXT NOT NULL DEFAULT '[]'",
    "superseded_by TEXT",
    "details TEXT NOT NULL DEFAULT '{}'",
)
COLUMNS = "id, kind, text, source, importance, created_s, expires_s, derived_from, superseded_by, details"
"""What `item_of` reads."""
OF_SCOPE = "tenant = :tenant AND (:agent IS NULL OR agent = :agent)"
"""Items of a scope, with what `bound` gives."""
LIVE = f"{OF_SCOPE} AND superseded_by IS NULL AND (expires_s IS NULL OR expires_s > :now)"
"""Those of them that are recalled."""


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
        elif version in (1, 2):
            for column in _SINCE_3:
                db.execute(f"ALTER TABLE items ADD COLUMN {column}")
            if version == 1:
                index_words(db)
        elif version != _VERSION:
            raise Conflict(
                f"memory {path.name!r} has format {version}, this version writes {_VERSION}",
                hint="use the pentad that wrote it, or another file",
            )
        if version != _VERSION:
            db.execute(f"PRAGMA user_version = {_VERSION}")
    return db


def insert(db: apsw.Connection, item: Item, scope: Scope, vector: Sequence[float]) -> int | None:
    """Keeps an item that has an id and an instant; its number, None if the id is there. In a transaction."""
    columns = f"tenant, agent, {COLUMNS}"
    row = (item.id, item.kind, item.text, item.source, item.importance, item.created_s, item.expires_s)
    more = (json.dumps(item.derived_from), item.superseded_by, json.dumps(dict(item.details)))
    values = (scope.tenant, scope.agent, *row, *more)
    db.execute(f"INSERT OR IGNORE INTO items ({columns}) VALUES ({', '.join('?' * len(values))})", values)
    if not db.changes():
        return None
    number = db.last_insert_rowid()
    db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, terms(item.text)))
    sql = "INSERT INTO vectors (number, tenant, embedding) VALUES (?, ?, ?)"
    db.execute(sql, (number, scope.tenant, packed(vector)))
    return number


def item_of(row: Sequence[Any]) -> Item:
    """The item that a row of COLUMNS holds."""
    ident, kind, text, source, importance, created_s, expires_s, derived_from, superseded_by, details = row
    return Item(
        id=ident,
        text=text,
        kind=kind,
        source=source,
        importance=importance,
        created_s=created_s,
        expires_s=expires_s,
        derived_from=tuple(parse_json(derived_from)),
        superseded_by=superseded_by,
        details=parse_json(details),
    )


def bound(scope: Scope, now_s: float = 0.0) -> dict[str, Any]:
    """The values of OF_SCOPE and LIVE."""
    return {"tenant": scope.tenant, "agent": scope.agent, "now": now_s}


def replace_item(db: apsw.Connection, ident: str, by: str, scope: Scope) -> None:
    """Notes that another item holds in place of one, which leaves both indexes. In a transaction.

    Raises NotFound.
    """
    values = bound(scope) | {"ident": ident, "by": by}
    numbers = [n for (n,) in db.execute(f"SELECT number FROM items WHERE id = :ident AND {OF_SCOPE}", values)]
    all_there([ident], [ident] * len(numbers))
    db.execute(f"UPDATE items SET superseded_by = :by WHERE id = :ident AND {OF_SCOPE}", values)
    for number in numbers:
        _erase_vector(db, cast(int, number))
        db.execute("DELETE FROM words WHERE rowid = ?", (number,))


def forget(db: apsw.Connection, path: pathlib.Path, idents: Sequence[str], scope: Scope) -> list[str]:
    """Removes items of a scope with their lineage and writes the file anew; the ids that went.

    Raises NotFound, and removes nothing, when one is not there; Unavailable as `compact` does.
    """
    with db:
        of_scope = db.execute(f"SELECT id FROM items WHERE {OF_SCOPE}", bound(scope))
        all_there(idents, [str(ident) for (ident,) in of_scope])
        gone = lineage(idents, links(db, scope.tenant))
        numbers = {
            str(ident): cast(int, number)
            for number, ident in db.execute("SELECT number, id FROM items WHERE tenant = ?", (scope.tenant,))
        }
        gone = [ident for ident in gone if ident in numbers]
        erase(db, [numbers[ident] for ident in gone])
    if gone:
        compact(db, path)
    return gone


def links(db: apsw.Connection, tenant: str) -> list[Link]:
    """What the tenant's items say about where they come from; those that say nothing are left out."""
    rows = db.execute(
        "SELECT id, superseded_by, derived_from FROM items WHERE tenant = ? "
        "AND (superseded_by IS NOT NULL OR derived_from <> '[]')",
        (tenant,),
    )
    return [Link(ident, by, tuple(parse_json(sources))) for ident, by, sources in cast(Any, rows)]


def erase(db: apsw.Connection, numbers: Sequence[int]) -> None:
    """Removes items from the tables and both indexes. In a transaction.

    Neither index lets go by itself: sqlite-vec only marks a vector's place as free, and the words of a
    contentless FTS5 table stay in its segments until they are merged.
    """
    if not numbers:
        return
    for number in numbers:
        _erase_vector(db, number)
        db.execute("DELETE FROM items WHERE number = ?", (number,))
    index_words(db)


def _erase_vector(db: apsw.Connection, number: int) -> None:
    sql = "SELECT length(embedding) FROM vectors WHERE number = ?"
    old = cast(Any, db.execute(sql, (number,)).fetchone())
    if old:
        db.execute("UPDATE vectors SET embedding = ? WHERE number = ?", (bytes(old[0]), number))
    db.execute("DELETE FROM vectors WHERE number = ?", (number,))


def index_words(db: apsw.Connection) -> None:
    """Builds the full-text index anew from the items that hold. In a transaction."""
    held = db.execute("SELECT number, text FROM items WHERE superseded_by IS NULL")
    rows = [(number, terms(str(text))) for number, text in held]
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
