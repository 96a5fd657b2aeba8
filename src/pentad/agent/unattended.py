"""What can be done to a run that no process works on: neither models nor tools are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.agent.approval import answered
from pentad.agent.events import UNFINISHED
from pentad.agent.journal import Journal
from pentad.agent.state import RunState, fold
from pentad.agent.worker import ended
from pentad.errors import Conflict


async def cancel_unattended(journal: Journal, run_id: str) -> None:
    """Ends the run. Raises NotFound; Conflict when it has ended or a living process works on it."""
    state = await _claimed(journal, run_id, "nothing to cancel")
    await journal.append(run_id, ended("cancelled", state, "cancelled by request"))


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
    await journal.append(run_id, answered(state, approval_id, approved=approved, note=note, content=content))


async def _claimed(journal: Journal, run_id: str, hint: str) -> RunState:
    row = journal.run(run_id)
    if row.status not in UNFINISHED:
        raise Conflict(f"run {run_id!r} has already ended: {row.status}", hint=hint)
    await journal.claim(run_id)
    return fold(journal.read(run_id))
