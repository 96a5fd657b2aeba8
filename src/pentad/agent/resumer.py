"""Resumer: takes up runs that no living process works on, with the sub-runs that they have under way."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from pentad.agent.admission import Admission
from pentad.agent.events import RunResumed
from pentad.agent.journal import RunHeld
from pentad.agent.journal_store.base import JournalUnavailable
from pentad.agent.resumption import resumable
from pentad.agent.rows import RunRow
from pentad.agent.run import Surroundings
from pentad.agent.run_status import UNFINISHED
from pentad.agent.run_tasks import RunTasks
from pentad.agent.state import RunState, fold
from pentad.agent.worker import Worker
from pentad.errors import Conflict, NotFound, Overloaded, PentadError

_LOG = logging.getLogger(__name__)
_SOON_S, _MOST_S = 0.2, 5.0
"""How long until the runs are looked at again: soon after one could not be had yet, then ever later."""


class Resumer:
    """Goes on with runs, in this process.

    Args:
        around: journal and models.
        admission: what may go on here.
        worker, tasks: what is worked on, and where.
    """

    def __init__(self, around: Surroundings, admission: Admission, worker: Worker, tasks: RunTasks) -> None:
        self._models, self._journal, self._stalls = around.models, around.journal, around.stalls
        self._admission = admission
        self._worker = worker
        self._tasks = tasks
        self._one_by_one = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._refused: set[str] = set()
        """Runs that cannot go on here: told once, and left to who can."""
        self._lost: set[str] = set()
        """Runs whose process was gone at the last look."""

    async def resume(self, row: RunRow, *, foreground: bool) -> None:
        """Takes up one run. Raises as `AgentRuntime.resume` does."""
        if row.status not in UNFINISHED:
            raise Conflict(f"run {row.id!r} has already ended: {row.status}", hint="start a new run")
        async with self._one_by_one:
            if row.id in self._tasks:
                raise Conflict(f"run {row.id!r} is already being worked on", hint="follow its events")
            with self._admission.place(row.tenant) as place:
                # Before it is claimed: a run with tools that only another program has is left to that one.
                await self._resumable(row.id)
                await self._journal.claim(row.id)
                state = await self._resumable(row.id)
                waiting = sum(asked.outlives_process for asked in state.pending.values())
                in_doubt = len(state.intents)
                resumed = RunResumed(in_doubt=in_doubt, waiting=waiting, foreground=foreground)
                record = await self._journal.append(row.id, resumed)
                self._worker.begin(state.apply(record), place.pop_all())

    async def resume_all(self) -> list[str]:
        """Takes up every run that can be; the ids of those taken up. From then on it looks by itself."""
        try:
            resumed, waiting = await self._look(first=True)
        except JournalUnavailable as error:
            _LOG.warning("no run is resumed yet: %s", error)
            resumed, waiting = [], True
        if self._looking is None:
            self._looking = asyncio.create_task(self._keep_looking(waiting=waiting))
        return resumed

    async def stop(self) -> None:
        """Looks no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _keep_looking(self, *, waiting: bool) -> None:
        pause_s = _SOON_S if waiting else _MOST_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                resumed, waiting = await self._look()
            except JournalUnavailable:
                resumed, waiting = [], True
            pause_s = _SOON_S if resumed else min(_MOST_S, 2 * pause_s) if waiting else _MOST_S

    async def _look(self, *, first: bool = False) -> tuple[list[str], bool]:
        """Takes up what can be: the ids, and whether some run may be had soon."""
        resumed, waiting, lost = [], False, set[str]()
        for row in await asyncio.to_thread(self._unattended, first):
            if row.parent is not None or row.id in self._tasks or row.id in self._refused:
                continue
            if not self._admission.fits(row.tenant):
                continue
            try:
                held = await self._journal.held(row.id)
                if held == "lost" and not first and row.id not in self._lost:
                    # Looked at once more: who lost the database for an instant is not dead.
                    lost.add(row.id)
                elif held != "held" and await self._taken_up(row):
                    resumed.append(row.id)
                waiting |= held != "free"
            except (JournalUnavailable, RunHeld, Overloaded) as error:
                _LOG.warning("run %s is not resumed yet: %s", row.id, error)
                waiting = True
        self._lost = lost
        return resumed, waiting

    async def _taken_up(self, row: RunRow) -> bool:
        """Whether the run is worked on here now; whatever is wrong with one, the others go on."""
        try:
            if not (await asyncio.to_thread(self._state, row.id)).foreground:
                await self.resume(row, foreground=False)
                return True
        except (JournalUnavailable, RunHeld, Overloaded):
            raise
        except PentadError as error:
            _LOG.warning("run %s is not resumed: %s", row.id, error)
        except Exception:
            _LOG.exception("run %s is not resumed", row.id)
        self._refused.add(row.id)
        return False

    def _unattended(self, everything: bool) -> list[RunRow]:
        """Unfinished runs; unless `everything`, those of other processes and those that ours gave up."""
        if everything:
            return self._journal.unfinished()
        rows = self._journal.unfinished(but_of=self._journal.owner)
        return [*rows, *(self._journal.run(run_id) for run_id in self._stalls.lost)]

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
