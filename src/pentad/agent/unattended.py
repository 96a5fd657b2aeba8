"""What can be done to a run that no process works on: neither models nor tools are needed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, cast

from pentad.agent.approval import WAITING, answered
from pentad.agent.endings import ended
from pentad.agent.journal import Journal
from pentad.agent.journal_view import JournalView
from pentad.agent.run_status import UNFINISHED, RunStatus
from pentad.agent.state import RunState, fold
from pentad.agent.sub_run_events import SubRunEnded
from pentad.agent.sub_run_state import SubRun
from pentad.agent.tool_events import ApprovalAsked
from pentad.errors import Conflict, NotFound
from pentad.types import Span


async def cancel_unattended(journal: Journal, run_id: str) -> None:
    """Ends the run, and its sub-runs before it.

    Raises NotFound; Conflict when it has ended or a living process works on it.
    """
    state = await _claimed(journal, run_id, "nothing to cancel")
    for child in [child for child in state.children.values() if not child.ended]:
        await journal.append(run_id, await _ended(journal, child))
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


def pending(journal: JournalView, run_id: str) -> list[tuple[str, ApprovalAsked]]:
    """What a run and its sub-runs ask a person, each with the id of the run that asks. Raises NotFound."""
    state = fold(journal.read(run_id))
    found = [(run_id, asked) for asked in state.pending.values()]
    for _, child in sorted(state.children.items()):
        with contextlib.suppress(NotFound):  # it never began
            if not child.ended:
                found += pending(journal, child.run_id)
    return found


def sub_run_end(child: SubRun, state: RunState | None) -> SubRunEnded:
    """The end of a sub-run as its parent notes it, from its state; None is one that never began."""
    if state is None:
        return SubRunEnded(step=child.step, index=child.index, run_id=child.run_id, status="cancelled")
    assert state.status not in UNFINISHED, "it has ended"
    used = state.ledger.committed + state.ledger.overdrawn
    return SubRunEnded(
        step=child.step,
        index=child.index,
        run_id=child.run_id,
        status=cast(RunStatus, state.status),
        tokens=used.tokens,
        cost=used.cost,
        tool_calls=used.tool_calls,
    )


async def _ended(journal: Journal, child: SubRun) -> SubRunEnded:
    try:
        if journal.run(child.run_id).status in UNFINISHED:
            await cancel_unattended(journal, child.run_id)
        return sub_run_end(child, fold(journal.read(child.run_id)))
    except NotFound:
        return sub_run_end(child, None)


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
