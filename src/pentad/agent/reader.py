"""RunReader: what can be asked about the runs of a journal; changes nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from pentad.agent.events import Record
from pentad.agent.explain import Explanation, explain
from pentad.agent.following import Hub
from pentad.agent.journal import Journal
from pentad.agent.prompt_store import Prompt
from pentad.agent.rows import RunRow, no_run
from pentad.agent.state import RunState, fold


class RunReader:
    """Runs of one journal, each only for the tenant that started it; others get NotFound.

    Args:
        journal: where the runs are.
        hub: live text of the runs of this process.
    """

    def __init__(self, journal: Journal, hub: Hub) -> None:
        self._journal = journal
        self._hub = hub

    async def events(
        self, run_id: str, after: int = 0, *, tenant: str = "default"
    ) -> AsyncGenerator[Record, None]:
        """The run's records with a sequence above `after`, then each new one, until it has ended.

        Raises NotFound when the tenant has no such run.
        """
        self._own(run_id, tenant)
        async with aclosing(self._hub.follow(self._journal, run_id, after)) as records:
            async for record in records:
                yield record

    async def wait(self, run_id: str, *, tenant: str = "default") -> RunState:
        """The run's state once it has ended: the fold of its events."""
        async with aclosing(self.events(run_id, tenant=tenant)) as records:
            return fold([record async for record in records])

    def list(
        self, *, tenant: str = "default", status: str | None = None, limit: int = 100
    ) -> Sequence[RunRow]:
        """The tenant's runs, newest first; with `status`, only those."""
        return self._journal.runs(tenant=tenant, status=status, limit=limit)

    def show(self, run_id: str, *, tenant: str = "default") -> RunState:
        """What the run has come to. Raises NotFound, JournalDamaged."""
        self._own(run_id, tenant)
        return fold(self._journal.read(run_id))

    def explain(self, run_id: str, *, tenant: str = "default") -> Explanation:
        """Where the run's time, tokens and decisions went, by layer. Raises NotFound, JournalDamaged."""
        earlier = self._journal.earlier(self._own(run_id, tenant))
        return explain(self._journal.read(run_id), earlier)

    def prompts(self, run_id: str, *, tenant: str = "default") -> Sequence[Prompt]:
        """What each model call of the run was asked. Raises NotFound, JournalDamaged."""
        self._own(run_id, tenant)
        return self._journal.prompts(run_id)

    def _own(self, run_id: str, tenant: str) -> RunRow:
        row = self._journal.run(run_id)
        if row.tenant != tenant:
            raise no_run(run_id)
        return row
