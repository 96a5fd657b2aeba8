"""Replicas: several engines with the same model as one, each request at one of them."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from pentad.errors import Overloaded, PentadError, Unavailable
from pentad.execution.loop import EngineDriver
from pentad.execution.request import StepOutput, TokenRequest

_SLACK: Final = 2
"""Sequences that a run's own replica may have more than the least busy one before the run leaves it."""
_MOST_RUNS: Final = 4096


class CalledDriver(EngineDriver, Protocol):
    """An engine elsewhere, which answers questions about its model."""

    def call(self, question: bytes) -> bytes:
        """What the model answers. Blocks."""
        ...


class Replicas:
    """Routes requests to the replica with the fewest sequences, those of a run to the one that has its cache.

    A replica that is not healthy, or full, is passed over while another can take the request. Outputs are
    those of one engine: a draw is a function of seed and position.

    Exactness: lossless. Cost: a comparison per replica and request; each replica holds all weights.

    Source: data parallelism of serving systems (survey, IV-B1); least outstanding requests, as in Clipper's
    load balancing; the slack of a run is ours.
    """

    elsewhere = True

    def __init__(self, replicas: Sequence[CalledDriver]) -> None:
        self.replicas = tuple(replicas)
        self.clock = replicas[0].clock
        self.given = [0] * len(replicas)
        """Requests that each was given, of all time."""
        self._busy = [0] * len(replicas)
        self._runs: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def max_sequence_tokens(self) -> int:
        """See EngineDriver: what all of them hold."""
        return min(replica.max_sequence_tokens for replica in self.replicas)

    def refuse_if_full(self) -> None:
        """See EngineDriver: only while none of them would take anything."""
        refusals: list[PentadError] = []
        for replica in self.replicas:
            try:
                replica.refuse_if_full()
            except (Overloaded, Unavailable) as error:
                refusals.append(error)
            else:
                return
        raise refusals[0]

    async def generate(self, requests: Sequence[TokenRequest]) -> AsyncIterator[StepOutput]:
        """See EngineDriver."""
        run_id = requests[0].context.run_id
        refusal: PentadError | None = None
        for place in self._order(run_id):
            self._take(place, len(requests), run_id)
            begun = False
            try:
                async for output in self.replicas[place].generate(requests):
                    begun = True
                    yield output
                return
            except (Overloaded, Unavailable) as error:
                if begun:
                    raise
                refusal = refusal or error
            finally:
                with self._lock:
                    self._busy[place] -= len(requests)
        assert refusal is not None, "there is a replica"
        raise refusal

    def _order(self, run_id: str | None) -> list[int]:
        """The replicas as they are to be tried."""
        with self._lock:
            ill = [replica.check() is not None for replica in self.replicas]
            places = sorted(range(len(ill)), key=lambda i: (ill[i], self._busy[i], self.given[i]))
            own = None if run_id is None else self._runs.get(run_id)
            if own is not None and not ill[own] and self._busy[own] <= self._busy[places[0]] + _SLACK:
                places.remove(own)
                places.insert(0, own)
            return places

    def _take(self, place: int, count: int, run_id: str | None) -> None:
        with self._lock:
            self._busy[place] += count
            self.given[place] += 1
            if run_id is not None:
                self._runs[run_id] = place
                self._runs.move_to_end(run_id)
                if len(self._runs) > _MOST_RUNS:
                    self._runs.popitem(last=False)

    def call(self, question: bytes) -> bytes:
        """What the model answers; all replicas are asked, since a question may change what they have."""
        answers = [replica.call(question) for replica in self.replicas]
        return answers[0]

    def check(self) -> str | None:
        """See EngineDriver: None while one of them is healthy."""
        troubles = [replica.check() for replica in self.replicas]
        return None if None in troubles else troubles[0]

    def stats(self) -> dict[str, float]:
        """See EngineDriver: sums; of fractions the mean."""
        every = [replica.stats() for replica in self.replicas]
        total: dict[str, float] = {}
        for stats in every:
            for name, value in stats.items():
                total[name] = total.get(name, 0.0) + value
        return {
            name: value / len(every) if name.endswith("_fraction") else value for name, value in total.items()
        }

    async def close(self, drain_s: float) -> None:
        """See EngineDriver."""
        await asyncio.gather(*(replica.close(drain_s) for replica in self.replicas))
