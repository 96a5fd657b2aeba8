"""Resumer: takes up runs that no living process works on, with the sub-runs that they have under way."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from pentad.agent.admission import Admission
from pentad.agent.events import RunResumed
from pentad.agent.journal_store.base import JournalUnavailable
from pentad.agent.resumption import resumable
from pentad.agent.rows import RunRow
from pentad.agent.run import Surroundings
from pentad.agent.run_status import UNFINISHED
from pentad.agent.run_tasks import RunTasks
from pentad.agent.state import RunState, fold
from pentad.agent.worker import Worker
from pentad.errors import Conflict, NotFound, PentadError

_LOG = logging.getLogger(__name__)
_AGAIN_S = 1.0
"""How long after a failed write the runs are looked at again."""


class Resumer:
    """Goes on with runs, in this process.

    Args:
        around: journal and models.
        admission: what may go on here.
        worker, tasks: what is worked on, and where.
    """

    def __init__(self, around: Surroundings, admission: Admission, worker: Worker, tasks: RunTasks) -> None:
        self._models, self._journal = around.models, around.journal
        self._admission = admission
        self._worker = worker
        self._tasks = tasks
        self._again: asyncio.Task[None] | None = None

    async def resume(self, row: RunRow, *, foreground: bool) -> None:
        """Takes up one run. Raises as `AgentRuntime.resume` does."""
        if row.status not in UNFINISHED:
            raise Conflict(f"run {row.id!r} has already ended: {row.status}", hint="start a new run")
        if row.id in self._tasks:
            raise Conflict(f"run {row.id!r} is already being worked on", hint="follow its events")
        with self._admission.place(row.tenant) as place:
            # Before it is claimed: a run with tools that only another program has is left to that one.
            await self._resumable(row.id)
            await self._journal.claim(row.id)
            state = await self._resumable(row.id)
            waiting = sum(asked.kind == "tool" for asked in state.pending.values())
            in_doubt = len(state.intents)
            resumed = RunResumed(in_doubt=in_doubt, waiting=waiting, foreground=foreground)
            record = await self._journal.append(row.id, resumed)
            self._worker.begin(state.apply(record), place.pop_all())

    async def resume_all(self) -> list[str]:
        """Takes up every run that can be; the ids of those taken up."""
        resumed = []
        for row in self._journal.unfinished():
            if row.parent is not None or row.id in self._tasks or not self._admission.fits(row.tenant):
                continue
            try:
                if (await asyncio.to_thread(self._state, row.id)).foreground:
                    continue
                await self.resume(row, foreground=False)
            except PentadError as error:
                _LOG.warning("run %s is not resumed: %s", row.id, error)
                if isinstance(error, JournalUnavailable) and self._again is None:
                    self._again = asyncio.create_task(self._resume_again())
            except Exception:  # whatever is wrong with one run, the others go on
                _LOG.exception("run %s is not resumed", row.id)
            else:
                resumed.append(row.id)
        return resumed

    async def stop(self) -> None:
        """Tries nothing again."""
        if self._again is not None:
            self._again.cancel()
            await asyncio.wait([self._again])

    async def _resume_again(self) -> None:
        await asyncio.sleep(_AGAIN_S)
        self._again = None
        await self.resume_all()

    def _state(self, run_id: str) -> RunState:
        return fold(self._journal.read(run_id))

    async def _resumable(self, run_id: str) -> RunState:
        """The state of a run that can go on here, and so can the sub-runs that it has under way."""
        state = resumable(await asyncio.to_thread(self._journal.read, run_id), self._models)
        self._admission.agent(state.spec)
        for child in state.children.values():
            with suppress(NotFound):  # killed before it began
                if not child.ended and self._journal.run(child.run_id).status in UNFINISHED:
                    await self._resumable(child.run_id)
        return state
