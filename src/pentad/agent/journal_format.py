"""The tables of the journal file, and how a file of an earlier format becomes one of this."""

from __future__ import annotations

import hashlib
import logging
import pathlib
import sqlite3

from pentad.agent import ownership, sqlite
from pentad.agent.journal_store.base import Db
from pentad.agent.rows import EVENT_COLUMNS, row_head
from pentad.agent.seal import Seal, load
from pentad.errors import Conflict

_LOG = logging.getLogger(__name__)

VERSION = 2
"""Since 2 the digests are keyed, and each run's line names its last row."""
_FINAL = (
    "CREATE TRIGGER events_are_kept BEFORE DELETE ON events "
    "WHEN EXISTS (SELECT 1 FROM runs WHERE id = OLD.run_id) BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER events_are_final BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END",
)
TABLES = (
    """CREATE TABLE runs (
      id TEXT PRIMARY KEY, tenant TEXT NOT NULL, agent TEXT NOT NULL, goal TEXT NOT NULL,
      started_s REAL NOT NULL, ended_s REAL, status TEXT NOT NULL, owner TEXT,
      last_sequence INTEGER, last_digest BLOB, last_seal BLOB
    ) STRICT""",
    "CREATE INDEX runs_by_tenant ON runs (tenant, started_s)",
    """CREATE TABLE events (
      run_id TEXT NOT NULL REFERENCES runs (id), sequence INTEGER NOT NULL, at_s REAL NOT NULL,
      clock_s REAL NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL, spans TEXT NOT NULL,
      digest BLOB NOT NULL, PRIMARY KEY (run_id, sequence)
    ) STRICT, WITHOUT ROWID""",
)
INDEXES = ("CREATE INDEX IF NOT EXISTS runs_under_way ON runs (owner) WHERE ended_s IS NULL",)
"""Made in any journal that lacks them, so that older ones need no conversion."""
SCHEMA = (*TABLES, *_FINAL)


def prepare(db: sqlite3.Connection, path: pathlib.Path) -> Seal:
    """Lays out an empty file, or brings one of an earlier format to this; its seal.

    Raises Conflict: a later format, no key, or a process that works in the earlier format.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    seal = load(path, make=version < VERSION)
    sqlite.prepare(
        db,
        schema=SCHEMA,
        version=VERSION,
        what="journal",
        earlier={1: lambda db: from_format_1(db, seal)},
    )
    return seal


def name_last(db: Db, seal: Seal, run_id: str, sequence: int, digest: bytes) -> None:
    """Notes which row is the run's last. In the transaction that writes it."""
    db.execute(
        "UPDATE runs SET last_sequence = ?, last_digest = ?, last_seal = ? WHERE id = ?",
        (sequence, digest, seal.last(run_id, sequence, digest), run_id),
    )


def from_format_1(db: sqlite3.Connection, seal: Seal) -> None:
    """Seals the runs of a file whose digests had no key. In a transaction.

    A run whose chain is broken is not sealed, so that it stays damaged.

    Raises Conflict while a process works on one of the runs: it would go on in the old format.
    """
    for run_id, owner in db.execute("SELECT id, owner FROM runs WHERE owner IS NOT NULL"):
        if ownership.alive(owner):
            raise Conflict(
                f"the journal has format 1 and process {owner.partition(':')[0]} works on run {run_id!r}",
                hint="stop that process, of an earlier version, first",
            )
    for trigger in ("events_are_kept", "events_are_final"):
        db.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    for column in ("last_sequence INTEGER", "last_digest BLOB", "last_seal BLOB"):
        db.execute(f"ALTER TABLE runs ADD COLUMN {column}")
    ids = [run_id for (run_id,) in db.execute("SELECT id FROM runs")]
    broken = [run_id for run_id in ids if not _sealed(db, seal, run_id)]
    for statement in _FINAL:
        db.execute(statement)
    _LOG.warning("the journal's format 1 is now %d: %d runs are sealed with a key", VERSION, len(ids))
    for run_id in broken:
        _LOG.warning("run %s was damaged before and stays so", run_id)


def _sealed(db: sqlite3.Connection, seal: Seal, run_id: str) -> bool:
    old, new, number, digests = b"", b"", 0, []
    rows = db.execute(f"SELECT {EVENT_COLUMNS} FROM events WHERE run_id = ? ORDER BY sequence", (run_id,))
    for number, (sequence, at_s, clock_s, kind, payload, spans, digest) in enumerate(rows, 1):
        try:
            head = row_head(run_id, sequence, at_s, clock_s, kind)
        except ValueError:
            return False
        old = hashlib.sha256(b"\n".join([old, head.encode(), payload.encode(), spans.encode()])).digest()
        if (sequence, digest) != (number, old):
            return False
        new = seal.row(new, head, payload, spans)
        digests.append((new, run_id, sequence))
    if not number:
        return False
    db.executemany("UPDATE events SET digest = ? WHERE run_id = ? AND sequence = ?", digests)
    name_last(db, seal, run_id, number, new)
    return True
