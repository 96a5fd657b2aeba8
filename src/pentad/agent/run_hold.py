"""RunHold: new runs wait while the KV cache of their model is taken by the runs under way."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from pentad.agent.ports import ModelPort
from pentad.agent.run import Run
from pentad.agent.state import RunState
from pentad.ranges import in_range
from pentad.types import Clock

HELD: Final = "held for the KV cache"
"""The span of a run that waited."""
_LOOK_S = 0.05
_SHOWS_S = 0.5
"""How long it may take until a run that was let in shows in the KV cache."""


class RunHold:
    """Lets a run begin once the cache has room, in the order in which they came.

    A run that begins while the cache is full only pushes out what others will ask for again at their next
    step: all of them prefill anew, and none ends sooner. Runs that have begun, and sub-runs, never wait: what
    they hold is given back only when they go on. Whoever has waited for `most_s`, or finds no other run of
    its model under way, begins all the same.

    Args:
        models: whose statistics tell how full the caches are; a backend that tells nothing holds nobody.
        above: share of the blocks that may be held, or kept for runs that go on, before new runs wait, above
            0 to 1; None: nobody waits.
        most_s: the longest wait.
    """

    def __init__(self, models: ModelPort, *, above: float | None, most_s: float, clock: Clock) -> None:
        in_range("hold_runs_above", above, above=0, most=1)
        in_range("hold_runs_s", most_s, least=0)
        self._models, self._above, self._most_s, self._clock = models, above, most_s, clock
        self._under_way: Counter[str] = Counter()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._let_in_s: dict[str, float] = {}

    @asynccontextmanager
    async def under_way(self, run: Run, model: str) -> AsyncIterator[None]:
        """The run goes on with that model; one that begins waits before."""
        if run.state.parent is not None:
            yield
            return
        if self._above is not None and _begins(run.state) and self._full(model, self._above):
            with run.span("agent", HELD):
                await self._wait(model, self._above)
        self._let_in_s[model] = self._clock()
        self._under_way[model] += 1
        try:
            yield
        finally:
            self._under_way[model] -= 1

    async def _wait(self, model: str, above: float) -> None:
        until_s = self._clock() + self._most_s
        async with self._turns[model]:
            while self._full(model, above) and self._clock() < until_s:  # noqa: ASYNC110 - engines don't tell
                await asyncio.sleep(_LOOK_S)

    def _full(self, model: str, above: float) -> bool:
        if not self._under_way[model]:
            return False
        told = self._models.stats().get(model, {})
        taken = told.get("kv_claimed_fraction", told.get("kv_usage_fraction", 0.0))
        # One that was just let in has no blocks yet; unless there is plenty of room, it is waited for.
        fresh = self._clock() - self._let_in_s.get(model, -_SHOWS_S) < _SHOWS_S
        return taken > above or (fresh and taken > above / 2)


def _begins(state: RunState) -> bool:
    """Whether the run has not asked the model yet."""
    return state.step == 1 and not state.attempt and not state.exchanges
