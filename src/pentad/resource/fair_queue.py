"""FairQueue: whose requests an engine gets next, so that one tenant's many do not hold up another's few."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pentad.execution.hints import TurnHints
from pentad.resource.scheduling.hinted_order import PATIENCE_S, lead_s
from pentad.types import Clock

RECENT_S = 10.0
"""A tenant counts as active for so long after its last request, so that its next one finds room."""


class FairQueue:
    """Lets requests of several tenants into one engine, in fair order. Used in one event loop.

    While a tenant is alone, it may have three quarters of the engine's sequences at once: the rest
    is room for whoever comes. While others are active, it may have `contended`, so that theirs share
    each step with few. Who waits goes in turn: first the tenant that has least in the engine, of its
    requests the most urgent, then the one that is wanted first (scheduling/hinted_order.py). Cost: a
    few dictionary look-ups per request.

    Source: deficit round robin over tenants as in Sheng et al., "Fairness in Serving Large Language
    Models" (OSDI'24); our difference: sequences in the engine are counted, not tokens served, since
    what they cost each other is the step that they share.

    Args:
        tenants: those who take turns; others, like health probes, go straight in.
        sequences: what the engine runs at once.
        contended: sequences of one tenant while another is active.
        clock: monotonic.
    """

    def __init__(self, tenants: frozenset[str], *, sequences: int, contended: int, clock: Clock) -> None:
        self._tenants = tenants
        self._alone = max(1, sequences * 3 // 4)
        self._contended = min(contended, self._alone)
        self._clock = clock
        self._inside: Counter[str] = Counter()
        self._last_s: dict[str, float] = {}
        self._waiting: dict[str, list[tuple[int, float, int, int, asyncio.Future[None]]]] = {}
        self._order = itertools.count()

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return sum(not granted.done() for queue in self._waiting.values() for *_, granted in queue)

    @asynccontextmanager
    async def turn(
        self, tenant: str, sequences: int = 1, priority: int = 0, hints: TurnHints | None = None
    ) -> AsyncIterator[None]:
        """Waits for a request's turn, then holds its place in the engine for the time of the block."""
        if tenant not in self._tenants:
            yield
            return
        self._last_s[tenant] = self._clock()
        if not self._waiting.get(tenant) and self._fits(tenant, sequences):
            self._inside[tenant] += sequences
        else:
            wanted_s = self._last_s[tenant] - lead_s(hints, PATIENCE_S)
            await self._wait(tenant, sequences, priority, wanted_s)
        try:
            yield
        finally:
            self._leave(tenant, sequences)

    def _fits(self, tenant: str, sequences: int) -> bool:
        """Whether the tenant may have so many more; one request always may, however many choices it has."""
        inside = self._inside[tenant]
        return inside == 0 or inside + sequences <= self._quota(tenant)

    def _quota(self, tenant: str) -> int:
        now_s = self._clock()
        contended = any(
            self._inside[other] or self._waiting.get(other) or now_s - last_s < RECENT_S
            for other, last_s in self._last_s.items()
            if other != tenant
        )
        return self._contended if contended else self._alone

    async def _wait(self, tenant: str, sequences: int, priority: int, wanted_s: float) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (priority, wanted_s, next(self._order), sequences, granted)
        heapq.heappush(self._waiting.setdefault(tenant, []), entry)
        try:
            await granted
        except BaseException:
            if granted.done() and not granted.cancelled():
                self._leave(tenant, sequences)
            else:
                self._let_in()
            raise

    def _leave(self, tenant: str, sequences: int) -> None:
        self._last_s[tenant] = self._clock()
        self._inside[tenant] -= sequences
        self._let_in()

    def _let_in(self) -> None:
        """Lets in whoever may, the tenant with least in the engine first."""
        for tenant in sorted(self._waiting, key=lambda name: self._inside[name]):
            queue = self._waiting[tenant]
            while queue and (queue[0][4].done() or self._fits(tenant, queue[0][3])):
                *_, sequences, granted = heapq.heappop(queue)
                if not granted.done():  # else its request has gone
                    self._inside[tenant] += sequences
                    granted.set_result(None)
            if not queue:
                del self._waiting[tenant]
