"""The data of images, sounds and files that runs were given: kept by content beside the journal's events."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pentad.agent.journal_store.base import Db
from pentad.agent.prompt_store import DAY_S, PromptRetention
from pentad.content import Media

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS part_data (
      sha256 TEXT PRIMARY KEY, data BLOB NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS part_uses (
      run_id TEXT NOT NULL, sha256 TEXT NOT NULL, at_s REAL NOT NULL, PRIMARY KEY (run_id, sha256)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS part_uses_by_age ON part_uses (at_s)",
    "CREATE INDEX IF NOT EXISTS part_uses_by_data ON part_uses (sha256)",
)
"""Made in any journal file that lacks them, so that older files need no conversion."""
_ORPHANS = "DELETE FROM part_data WHERE sha256 NOT IN (SELECT sha256 FROM part_uses)"


def keep(db: Db, run_id: str, parts: Sequence[Media], at_s: float) -> None:
    """Keeps the data of parts that a run begins with. In a transaction."""
    for part in parts:
        db.execute(
            "INSERT INTO part_data (sha256, data) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (part.sha256, part.data),
        )
        db.execute(
            "INSERT INTO part_uses (run_id, sha256, at_s) VALUES (?, ?, ?) "
            "ON CONFLICT (run_id, sha256) DO UPDATE SET at_s = excluded.at_s",
            (run_id, part.sha256, at_s),
        )


def copy(db: Db, source: str, run_id: str) -> None:
    """Lets a run that was copied from `source` use its parts too. In a transaction."""
    db.execute(
        "INSERT INTO part_uses (run_id, sha256, at_s) "
        "SELECT ?, sha256, at_s FROM part_uses WHERE run_id = ? ON CONFLICT DO NOTHING",
        (run_id, source),
    )


def expire(db: Db, now_s: float, retention: PromptRetention) -> None:
    """Deletes what is older than the retention of prompts. In a transaction."""
    if db.execute("DELETE FROM part_uses WHERE at_s <= ?", (now_s - retention.days * DAY_S,)).rowcount:
        db.execute(_ORPHANS)


def forget(db: Db, run_id: str) -> None:
    """Deletes a run's parts, but not data that another run was given too. In a transaction."""
    if db.execute("DELETE FROM part_uses WHERE run_id = ?", (run_id,)).rowcount:
        db.execute(_ORPHANS)


def data(db: Db, run_id: str, sha256: str, now_s: float, retention: PromptRetention) -> bytes | None:
    """The data of a part of the run; None where they are gone, damaged or too old."""
    row = db.execute(
        "SELECT data FROM part_data JOIN part_uses USING (sha256) "
        "WHERE run_id = ? AND sha256 = ? AND at_s > ?",
        (run_id, sha256, now_s - retention.days * DAY_S),
    ).fetchone()
    if row is None or hashlib.sha256(row[0]).hexdigest() != sha256:
        return None
    found: bytes = row[0]
    return found
