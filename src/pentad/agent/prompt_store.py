"""What each model call of a run was asked, word for word: kept by content beside the journal's events."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from pentad.agent.events import Record
from pentad.agent.journal_store.base import Db
from pentad.agent.model_events import ModelAsked, Purpose

DAY_S = 86_400.0
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS prompt_texts (
      sha256 TEXT PRIMARY KEY, text BLOB NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS prompt_uses (
      run_id TEXT NOT NULL, sha256 TEXT NOT NULL, at_s REAL NOT NULL, PRIMARY KEY (run_id, sha256)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS prompt_uses_by_age ON prompt_uses (at_s)",
    "CREATE INDEX IF NOT EXISTS prompt_uses_by_text ON prompt_uses (sha256)",
)
"""Made in any journal file that lacks them, so that older files need no conversion."""
_ORPHANS = "DELETE FROM prompt_texts WHERE sha256 NOT IN (SELECT sha256 FROM prompt_uses)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRetention:
    """Whose prompts are kept, and for how long."""

    days: float = 30.0
    """A prompt is deleted when it was last asked that long ago; 0 keeps none."""
    labels: tuple[str, ...] = ()
    """Data labels whose prompts are kept too. Those of runs without a label always are."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.days) and self.days >= 0):
            raise ValueError(f"days is {self.days}, must be 0 or more")

    def keeps(self, data_label: str | None) -> bool:
        """Whether prompts of a run with that label are kept."""
        return self.days > 0 and (data_label is None or data_label in self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The prompt of one model call."""

    step: int
    attempt: int
    purpose: Purpose
    request_id: str
    sha256: str
    """Of the text in UTF-8; in the event, so that it is known also when the text is not kept."""
    text: str | None
    """As the model saw it, control tokens spelled out; None when it was not kept."""


def fingerprint(text: str) -> str:
    """The SHA-256 of a prompt, in hexadecimal."""
    return hashlib.sha256(_bytes(text)).hexdigest()


def keep(db: Db, run_id: str, text: str, at_s: float, retention: PromptRetention) -> None:
    """Keeps a prompt that a run asks now, and lets go of those that are too old. In a transaction."""
    digest = fingerprint(text)
    db.execute(
        "INSERT INTO prompt_texts (sha256, text) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (digest, zlib.compress(_bytes(text), 6)),
    )
    db.execute(
        "INSERT INTO prompt_uses (run_id, sha256, at_s) VALUES (?, ?, ?) "
        "ON CONFLICT (run_id, sha256) DO UPDATE SET at_s = excluded.at_s",
        (run_id, digest, at_s),
    )
    expire(db, at_s, retention)


def copy(db: Db, source: str, records: Sequence[Record]) -> None:
    """Lets a run that was copied from `source` use the prompts of its own records too. In a transaction."""
    for event in (record.event for record in records):
        if isinstance(event, ModelAsked):
            db.execute(
                "INSERT INTO prompt_uses (run_id, sha256, at_s) "
                "SELECT ?, sha256, at_s FROM prompt_uses WHERE run_id = ? AND sha256 = ? "
                "ON CONFLICT DO NOTHING",
                (records[0].run_id, source, event.prompt_sha256),
            )


def expire(db: Db, now_s: float, retention: PromptRetention) -> int:
    """Deletes what is older than the retention; returns how many uses went. In a transaction."""
    gone = db.execute("DELETE FROM prompt_uses WHERE at_s <= ?", (now_s - retention.days * DAY_S,)).rowcount
    if gone:
        db.execute(_ORPHANS)
    return gone


def forget(db: Db, run_id: str) -> int:
    """Deletes a run's prompts, but not texts that another run asked too. In a transaction."""
    gone = db.execute("DELETE FROM prompt_uses WHERE run_id = ?", (run_id,)).rowcount
    if gone:
        db.execute(_ORPHANS)
    return gone


def prompts(db: Db, records: Sequence[Record], now_s: float, retention: PromptRetention) -> list[Prompt]:
    """The prompts of a run's model calls, in order; a text that is gone or damaged is None."""
    rows = db.execute(
        "SELECT sha256, text FROM prompt_texts JOIN prompt_uses USING (sha256) WHERE run_id = ? AND at_s > ?",
        (records[0].run_id, now_s - retention.days * DAY_S),
    )
    kept = {digest: _unpacked(packed, digest) for digest, packed in rows}
    return [
        Prompt(
            step=event.step,
            attempt=event.attempt,
            purpose=event.purpose,
            request_id=event.request_id,
            sha256=event.prompt_sha256,
            text=kept.get(event.prompt_sha256),
        )
        for event in (record.event for record in records)
        if isinstance(event, ModelAsked)
    ]


def _unpacked(packed: bytes, digest: str) -> str | None:
    try:
        data = zlib.decompress(packed)
    except zlib.error:
        return None
    return data.decode("utf-8", "replace") if hashlib.sha256(data).hexdigest() == digest else None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
