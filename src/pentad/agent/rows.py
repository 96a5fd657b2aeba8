"""One event as a row of the journal, and back. Rows are untrusted: each is checked when read."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from pentad.agent.codec import Malformed, dumps, encode, fit
from pentad.agent.events import Record, RunEnded, RunResumed, RunStarted, from_json
from pentad.agent.journal_store.base import Db
from pentad.agent.run_status import RUN_STATES
from pentad.agent.seal import Seal
from pentad.agent.sqlite import storable
from pentad.agent.sub_run_events import Parent, SubRunChanged, SubRunEnded
from pentad.agent.tool_events import ApprovalAnswered, ApprovalAsked
from pentad.errors import NotFound, PentadError, UnknownName
from pentad.json_text import parse_json
from pentad.types import Span

EVENT_COLUMNS = "sequence, at_s, clock_s, kind, payload, spans, digest"


DAMAGED = "damaged"
"""Stands in lists for the status of a run whose rows cannot be trusted."""


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
    """`running` or `waiting` until the run has ended, whether or not a process is at it now.

    `damaged` when its events are not what a journal wrote; then what else is known of it may be empty.
    """
    parent: Parent | None = None
    """Whose sub-run it is."""


def check_status(status: str | None) -> None:
    """Raises UnknownName for what is no state of a run; None asks for all."""
    known = (*RUN_STATES, DAMAGED)
    if status is not None and status not in known:
        raise UnknownName(
            f"no run is ever {status[:100]!r}", hint=f"known: {', '.join(known)}", param="status"
        )


def no_run(run_id: str) -> NotFound:
    """The error for a run that is not there, or not for this tenant."""
    return NotFound(f"no run {run_id!r}", hint="pentad runs list, or GET /v1/runs, shows those there are")


Row = tuple[int, float, float, str, str, str, bytes]


def to_row(record: Record, tail: bytes, seal: Seal) -> Row:
    """The values of EVENT_COLUMNS. `tail` is the digest of the run's row before, b"" for the first."""
    payload, spans = _json(record.event), _json(record.spans)
    head = row_head(record.run_id, record.sequence, record.at_s, record.clock_s, record.kind)
    digest = seal.row(tail, head, payload, spans)
    return record.sequence, record.at_s, record.clock_s, record.kind, payload, spans, digest


def _json(value: object) -> str:
    """Canonical JSON of an event or of spans; by the fast encoder where that writes just what ours means."""
    if not isinstance(value, RunStarted):  # of its media some fields are kept apart
        try:
            fast = msgspec.json.encode(value, order="sorted")
        except (TypeError, ValueError):  # a lone surrogate, or what it does not know
            fast = b"null"
        if b"null" not in fast:  # None, or a number that is none, which ours refuses
            return fast.decode()
    return dumps(encode(value))


def from_row(run_id: str, number: int, row: Sequence[object], tail: bytes, seal: Seal) -> Record:
    """The record that row `number` of a run holds.

    Raises JournalDamaged when the row is not one that `to_row` made for this place, with this key.
    """
    sequence, at_s, clock_s, kind, payload, spans, digest = row
    try:
        if sequence != number:
            raise Malformed("sequence", f"is {sequence!r}")
        # Before anything is made of it: what the key did not seal is not looked into.
        head = row_head(run_id, number, fit(float, at_s, "at_s"), fit(float, clock_s, "clock_s"), str(kind))
        made = seal.row(tail, head, str(payload), str(spans))
        if not (isinstance(digest, bytes) and hmac.compare_digest(digest, made)):
            raise Malformed("digest", "does not match the row")
        return Record(
            run_id=run_id,
            sequence=number,
            at_s=fit(float, at_s, "at_s"),
            clock_s=fit(float, clock_s, "clock_s"),
            event=from_json(str(kind), parse_json(str(payload))),
            spans=fit(tuple[Span, ...], parse_json(str(spans)), "spans"),
        )
    except ValueError as error:
        raise damaged(run_id, f"event {number}", str(error)[:200]) from None


def damaged(run_id: str, what: str, why: str) -> JournalDamaged:
    """The error of a run that cannot be trusted."""
    return JournalDamaged(
        f"{what} of run {run_id!r} is damaged: {why}",
        hint="restore the journal from a backup, or remove the run; it is left as it is",
    )


def row_head(run_id: str, sequence: int, at_s: float, clock_s: float, kind: str) -> str:
    """The columns of a row besides payload and spans, as its digest sees them. ValueError for no number."""
    return dumps([run_id, sequence, at_s, clock_s, kind])


def project(db: Db, record: Record, owner: str) -> None:
    """Keeps the list of runs in step with the events, in the same transaction."""
    event = record.event
    if isinstance(event, RunStarted):
        db.execute(
            "INSERT INTO runs (id, tenant, agent, goal, started_s, status, owner) "
            "VALUES (?, ?, ?, ?, ?, 'running', ?)",
            (record.run_id, storable(event.tenant), name_of(event), storable(event.goal), record.at_s, owner),
        )
    elif isinstance(event, RunEnded):
        db.execute(
            "UPDATE runs SET status = ?, ended_s = ?, owner = NULL WHERE id = ?",
            (event.status, record.at_s, record.run_id),
        )
    elif isinstance(event, SubRunChanged | SubRunEnded):
        _set_waits(db, record.run_id, event.waits)
    elif isinstance(event, ApprovalAsked | ApprovalAnswered | RunResumed):
        waits = isinstance(event, ApprovalAsked) or event.waiting > 0
        _set_waits(db, record.run_id, waits)


def _set_waits(db: Db, run_id: str, waits: bool) -> None:
    db.execute("UPDATE runs SET status = ? WHERE id = ?", ("waiting" if waits else "running", run_id))


def name_of(event: RunStarted) -> str:
    """The agent's name, as the list of runs has it."""
    return storable(str(event.agent.get("name", "")))
