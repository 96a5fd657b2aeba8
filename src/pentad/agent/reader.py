"""RunReader: what can be asked about the runs of a journal; changes nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from pentad.agent.event_stream import Hub
from pentad.agent.events import Record
from pentad.agent.explain import Explanation, explain
from pentad.agent.journal import Journal
from pentad.agent.journal_store.base import JournalStore
from pentad.agent.prompt_store import Prompt
from pentad.agent.rows import RunRow, no_run
from pentad.agent.run_status import UNFINISHED
from pentad.agent.stalls import Stalls
from pentad.agent.state import RunState, fold
from pentad.agent.tool_events import ApprovalAsked
from pentad.agent.unattended import pending


class RunReader:
    """Runs of one journal, each only for the tenant that started it; others get NotFound.

    Args:
        journal: where the runs are.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._stalls = Stalls()
        self._hub = Hub(self._stalls)

    @property
    def journal_store(self) -> JournalStore:
        """The journal's database; what others keep of runs lies in it too."""
        return self._journal.store

    async def events(
        self, run_id: str, after: int = 0, *, tenant: str = "default", patient: bool = False
    ) -> AsyncGenerator[Record, None]:
        """The run's records with a sequence above `after`, then each new one, until it has ended.

        Raises NotFound when the tenant has no such run; JournalUnavailable when the run waits for the
        journal, unless `patient`: it goes on by itself, and so can who follows it.
        """
        self._own(run_id, tenant)
        async with aclosing(self._hub.follow(self._journal, run_id, after, patient=patient)) as records:
            async for record in records:
                yield record

    async def wait(self, run_id: str, *, tenant: str = "default") -> RunState:
        """The run's state once it has ended: the fold of its events."""
        async with aclosing(self.events(run_id, tenant=tenant, patient=True)) as records:
            return fold([record async for record in records])

    def list(
        self, *, tenant: str = "default", status: str | None = None, limit: int = 100
    ) -> Sequence[RunRow]:
        """The tenant's runs, newest first; with `status`, only those."""
        asked = "running" if status == "stalled" else status
        rows = [
            replace(row, status="stalled") if row.status in UNFINISHED and self._stalls.why(row.id) else row
            for row in self._journal.runs(tenant=tenant, status=asked, limit=limit)
        ]
        return rows if status is None else [row for row in rows if row.status == status]

    def show(self, run_id: str, *, tenant: str = "default") -> RunState:
        """What the run has come to. Raises NotFound, JournalDamaged."""
        self._own(run_id, tenant)
        state, kept = fold(self._journal.read(run_id)), self._stalls.why(run_id)
        return state if kept is None or state.ended else replace(state, status="stalled", error=str(kept))

    def records(self, run_id: str, *, tenant: str = "default") -> Sequence[Record]:
        """What is in the journal of the run. Raises NotFound, JournalDamaged."""
        self._own(run_id, tenant)
        return self._journal.read(run_id)

    def pending(self, run_id: str, *, tenant: str = "default") -> Sequence[tuple[str, ApprovalAsked]]:
        """What a person is asked by the run and by its sub-runs, each with the id of the run that asks."""
        self._own(run_id, tenant)
        return pending(self._journal, run_id)

    def explain(self, run_id: str, *, tenant: str = "default") -> Explanation:
        """Where the run's time, tokens and decisions went, by layer. Raises NotFound, JournalDamaged."""
        earlier = self._journal.earlier(self._own(run_id, tenant))
        return explain(self._journal.read(run_id), earlier)

    def prompts(self, run_id: str, *, tenant: str = "default") -> Sequence[Prompt]:
        """What each model call of the run was asked. Raises NotFound, JournalDamaged."""
        self._own(run_id, tenant)
        return self._journal.prompts(run_id)

    async def trouble(self) -> str | None:
        """Why no run can go on now; None when the journal can be written."""
        return await self._journal.trouble()

    def _asking(self, run_id: str, approval_id: str) -> str:
        """Which of the run and its sub-runs asks this; the run itself when none does."""
        found = (
            asking for asking, asked in pending(self._journal, run_id) if asked.approval_id == approval_id
        )
        return next(found, run_id)

    def _own(self, run_id: str, tenant: str) -> RunRow:
        row = self._journal.run(run_id)
        if row.tenant != tenant:
            raise no_run(run_id)
        return row
