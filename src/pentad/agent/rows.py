"""One event as a row of the journal, and back. Rows are untrusted: each is checked when read."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from pentad.agent.codec import Malformed, dumps, encode, fit
from pentad.agent.events import (
    RUN_STATES,
    ApprovalAnswered,
    ApprovalAsked,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
    from_json,
)
from pentad.agent.sqlite import storable
from pentad.errors import PentadError, UnknownName
from pentad.json_text import parse_json
from pentad.types import Span

EVENT_COLUMNS = "sequence, at_s, clock_s, kind, payload, spans, digest"


class JournalDamaged(PentadError):
    """A row is not what a journal writes; the run is not touched."""

    code = "journal_damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One line of the list of runs."""

    id: str
    tenant: str
    agent: str
    goal: str
    started_s: float
    ended_s: float | None
    status: str
    """`running` or `waiting` until the run has ended, whether or not a process is at it now."""


def check_status(status: str | None) -> None:
    """Raises UnknownName for what is no state of a run; None asks for all."""
    if status is not None and status not in RUN_STATES:
        raise UnknownName(
            f"no run is ever {status[:100]!r}", hint=f"known: {', '.join(RUN_STATES)}", param="status"
        )


Row = tuple[int, float, float, str, str, str, bytes]


def to_row(record: Record, tail: bytes) -> Row:
    """The values of EVENT_COLUMNS. `tail` is the digest of the run's row before, b"" for the first."""
    payload, spans = dumps(encode(record.event)), dumps(encode(record.spans))
    digest = _digest(tail, record, payload, spans)
    return record.sequence, record.at_s, record.clock_s, record.kind, payload, spans, digest


def from_row(run_id: str, number: int, row: Sequence[object], tail: bytes) -> Record:
    """The record that row `number` of a run holds.

    Raises JournalDamaged when the row is not one that `to_row` made for this place.
    """
    sequence, at_s, clock_s, kind, payload, spans, digest = row
    try:
        if sequence != number:
            raise Malformed("sequence", f"is {sequence!r}")
        record = Record(
            run_id=run_id,
            sequence=number,
            at_s=fit(float, at_s, "at_s"),
            clock_s=fit(float, clock_s, "clock_s"),
            event=from_json(str(kind), parse_json(str(payload))),
            spans=fit(tuple[Span, ...], parse_json(str(spans)), "spans"),
        )
        if digest != _digest(tail, record, str(payload), str(spans)):
            raise Malformed("digest", "does not match the row")
    except ValueError as error:
        raise JournalDamaged(
            f"event {number} of run {run_id!r} is damaged: {str(error)[:200]}",
            hint="restore the journal from a backup; the run is left as it is",
        ) from None
    return record


def _digest(tail: bytes, record: Record, payload: str, spans: str) -> bytes:
    head = dumps([record.run_id, record.sequence, record.at_s, record.clock_s, record.kind])
    return hashlib.sha256(b"\n".join([tail, head.encode(), payload.encode(), spans.encode()])).digest()


def project(db: sqlite3.Connection, record: Record, owner: str) -> None:
    """Keeps the list of runs in step with the events, in the same transaction."""
    event = record.event
    if isinstance(event, RunStarted):
        db.execute(
            "INSERT INTO runs (id, tenant, agent, goal, started_s, status, owner) "
            "VALUES (?, ?, ?, ?, ?, 'running', ?)",
            (record.run_id, event.tenant, _name(event), storable(event.goal), record.at_s, owner),
        )
    elif isinstance(event, RunEnded):
        db.execute(
            "UPDATE runs SET status = ?, ended_s = ?, owner = NULL WHERE id = ?",
            (event.status, record.at_s, record.run_id),
        )
    elif isinstance(event, ApprovalAsked | ApprovalAnswered | RunResumed):
        waits = isinstance(event, ApprovalAsked) or event.waiting > 0
        db.execute(
            "UPDATE runs SET status = ? WHERE id = ?", ("waiting" if waits else "running", record.run_id)
        )


def _name(event: RunStarted) -> str:
    return storable(str(event.agent.get("name", "")))
