"""What can be done to a run that no process works on: neither models nor tools are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.agent.approval import WAITING, answered
from pentad.agent.journal import Journal
from pentad.agent.run_status import UNFINISHED
from pentad.agent.state import RunState, fold
from pentad.agent.worker import ended
from pentad.errors import Conflict
from pentad.types import Span


async def cancel_unattended(journal: Journal, run_id: str) -> None:
    """Ends the run. Raises NotFound; Conflict when it has ended or a living process works on it."""
    state = await _claimed(journal, run_id, "nothing to cancel")
    await journal.append(run_id, ended("cancelled", state, "cancelled by request"), _waited(journal, state))


async def answer_unattended(
    journal: Journal,
    run_id: str,
    approval_id: str,
    *,
    approved: bool,
    note: str = "",
    content: Mapping[str, Any] | None = None,
) -> None:
    """Journals what a person said; whoever resumes the run acts on it.

    Raises NotFound; Conflict as `cancel_unattended` does, or when it is answered already.
    """
    state = await _claimed(journal, run_id, "nothing is asked")
    said = answered(state, approval_id, approved=approved, note=note, content=content)
    await journal.append(run_id, said, _waited(journal, state))


def _waited(journal: Journal, state: RunState) -> tuple[Span, ...]:
    """The time that the run has waited for a person, if that is what it did; nothing across a reboot."""
    now_s = journal.clock()
    if state.status != "waiting" or now_s < state.clock_s:
        return ()
    return (Span(layer="agent", name=WAITING, start_s=state.clock_s, end_s=now_s),)


async def _claimed(journal: Journal, run_id: str, hint: str) -> RunState:
    row = journal.run(run_id)
    if row.status not in UNFINISHED:
        raise Conflict(f"run {run_id!r} has already ended: {row.status}", hint=hint)
    await journal.claim(run_id)
    return fold(journal.read(run_id))
