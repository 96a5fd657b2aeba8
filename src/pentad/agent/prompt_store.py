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
    """CREATE TABLE IF NOT EXISTS prompt_bases (
      sha256 TEXT PRIMARY KEY, base TEXT NOT NULL, shared_bytes INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS prompt_uses_by_age ON prompt_uses (at_s)",
    "CREATE INDEX IF NOT EXISTS prompt_uses_by_text ON prompt_uses (sha256)",
)
"""Made in any journal file that lacks them, so that older files need no conversion.

A text with a line in `prompt_bases` is what follows the first `shared_bytes` of another text, its base.
"""
_ORPHAN = "NOT IN (SELECT sha256 FROM prompt_uses)"
_LEAST_SHARED = 0.5
"""Of a prompt's bytes: from there on it is kept as what follows an earlier one."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptText:
    """What a model call is asked, as it is kept."""

    data: bytes
    """UTF-8."""
    sha256: str
    """Of the data, in hexadecimal."""
    before: PromptText | None = None
    """An earlier prompt of the run, which this one may go on from."""

    @classmethod
    def of(cls, text: str) -> PromptText:
        """A text with its digest."""
        data = text.encode("utf-8", "replace")
        return cls(data=data, sha256=hashlib.sha256(data).hexdigest())

    def behind(self, before: PromptText | None) -> PromptText:
        """The same, told of an earlier prompt."""
        if before is None:
            return self
        alone = PromptText(data=before.data, sha256=before.sha256)
        return PromptText(data=self.data, sha256=self.sha256, before=alone)


def keep(db: Db, run_id: str, prompt: PromptText, at_s: float) -> None:
    """Keeps a prompt that a run asks now: of one that goes on from an earlier one, what is new.

    In a transaction.
    """
    if db.execute("SELECT 1 FROM prompt_texts WHERE sha256 = ?", (prompt.sha256,)).fetchone() is None:
        shared = _shared_bytes(db, prompt)
        packed = zlib.compress(prompt.data[shared:], 6)
        db.execute("INSERT INTO prompt_texts (sha256, text) VALUES (?, ?)", (prompt.sha256, packed))
        if shared and prompt.before is not None:
            db.execute(
                "INSERT INTO prompt_bases (sha256, base, shared_bytes) VALUES (?, ?, ?)",
                (prompt.sha256, prompt.before.sha256, shared),
            )
    db.execute(
        "INSERT INTO prompt_uses (run_id, sha256, at_s) VALUES (?, ?, ?) "
        "ON CONFLICT (run_id, sha256) DO UPDATE SET at_s = excluded.at_s",
        (run_id, prompt.sha256, at_s),
    )


def _shared_bytes(db: Db, prompt: PromptText) -> int:
    """How many bytes of the prompt the earlier one has, and are kept with that; 0 where it is gone."""
    before = prompt.before
    if before is None or before.sha256 == prompt.sha256:
        return 0
    low, high = 0, min(len(before.data), len(prompt.data))
    while low < high:
        middle = (low + high + 1) // 2
        if before.data[:middle] == prompt.data[:middle]:
            low = middle
        else:
            high = middle - 1
    if low < _LEAST_SHARED * len(prompt.data):
        return 0
    there = db.execute("SELECT 1 FROM prompt_texts WHERE sha256 = ?", (before.sha256,)).fetchone()
    return 0 if there is None else low


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
        _drop_orphans(db)
    return gone


def forget(db: Db, run_id: str) -> int:
    """Deletes a run's prompts, but not texts that another run asked too. In a transaction."""
    gone = db.execute("DELETE FROM prompt_uses WHERE run_id = ?", (run_id,)).rowcount
    if gone:
        _drop_orphans(db)
    return gone


def _drop_orphans(db: Db) -> None:
    """Deletes texts that nobody asked; what goes on from one is written whole before. In a transaction."""
    left = db.execute(
        f"SELECT sha256 FROM prompt_bases WHERE sha256 IN (SELECT sha256 FROM prompt_uses) AND base {_ORPHAN}"
    ).fetchall()
    known: dict[str, bytes] = {}
    for (digest,) in left:
        data = _whole(db, digest, known)
        if data is not None:
            db.execute("UPDATE prompt_texts SET text = ? WHERE sha256 = ?", (zlib.compress(data, 6), digest))
        db.execute("DELETE FROM prompt_bases WHERE sha256 = ?", (digest,))
    for table in ("prompt_texts", "prompt_bases"):
        db.execute(f"DELETE FROM {table} WHERE sha256 {_ORPHAN}")


def _whole(db: Db, digest: str, known: dict[str, bytes]) -> bytes | None:
    """A kept text with all that it goes on from; None where something of it is gone or damaged.

    Args:
        known: texts that were made whole before; this one is added.
    """
    parts: list[tuple[bytes, int]] = []
    passed: set[str] = set()
    at: str | None = digest
    while at is not None and at not in known:
        row = db.execute(
            "SELECT text, base, shared_bytes FROM prompt_texts LEFT JOIN prompt_bases USING (sha256) "
            "WHERE sha256 = ?",
            (at,),
        ).fetchone()
        if row is None or at in passed:
            return None
        passed.add(at)
        packed, at, shared = row
        try:
            parts.append((zlib.decompress(packed), shared or 0))
        except zlib.error:
            return None
    data = b"" if at is None else known[at]
    for part, shared in reversed(parts):
        data = data[:shared] + part
    if hashlib.sha256(data).hexdigest() != digest:
        return None
    known[digest] = data
    return data


def prompts(db: Db, records: Sequence[Record], now_s: float, retention: PromptRetention) -> list[Prompt]:
    """The prompts of a run's model calls, in order; a text that is gone or damaged is None."""
    rows = db.execute(
        "SELECT sha256 FROM prompt_uses WHERE run_id = ? AND at_s > ?",
        (records[0].run_id, now_s - retention.days * DAY_S),
    ).fetchall()
    asked, kept = {digest for (digest,) in rows}, dict[str, bytes]()
    for event in (
        record.event for record in records
    ):  # in order, so that each goes on from one that is whole
        if isinstance(event, ModelAsked) and event.prompt_sha256 in asked:
            _whole(db, event.prompt_sha256, kept)
    return [
        Prompt(
            step=event.step,
            attempt=event.attempt,
            purpose=event.purpose,
            request_id=event.request_id,
            sha256=event.prompt_sha256,
            text=_text(kept.get(event.prompt_sha256)),
        )
        for event in (record.event for record in records)
        if isinstance(event, ModelAsked)
    ]


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace")
