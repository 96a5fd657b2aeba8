"""World: engines, links and requests on one virtual clock; events ordered by (time, priority, sequence)."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Protocol

from pentad.resource.scaling.next_stages import Call
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.handovers import Target
from pentad.resource.simulator.placing import Placing
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.trace import TraceItem

KEPT_LENGTHS = 256
"""Latest requests of a model whose lengths a scaler sees."""
TELL_EVERY = 256
"""Events between two words on progress."""


class Event(Protocol):
    """Something that happens at an instant."""

    priority: ClassVar[int]
    """Among events of one instant, lower happens first."""

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        """Does it, and returns what follows with its instant."""
        ...


class World:
    """Engines on a virtual clock, and the record of every request.

    Args:
        engines: each built on `clock`.
        clock: set to each event's instant before it fires.
        placing: chooses the engine of a request; None takes the first.
        clipped: per item id, the tokens that were cut off it.
        seed: of the prompts' tokens.
        each_step: whether steps are taken one by one also where nothing happens between them.
    """

    def __init__(
        self,
        engines: Sequence[SimulatedEngine],
        clock: VirtualClock,
        *,
        placing: Placing | None = None,
        clipped: dict[str, int] | None = None,
        seed: int = 0,
        each_step: bool = False,
    ) -> None:
        self.engines = {engine.name: engine for engine in engines}
        self.clock = clock
        self.placing = placing
        self.seed = seed
        self.clipped = clipped or {}
        self.pools: dict[str, list[SimulatedEngine]] = defaultdict(list)
        """Engines by model."""
        for engine in engines:
            self.pools[engine.spec.name].append(engine)
        sharing = Counter(device for engine in engines for device in engine.devices)
        for engine in engines:  # engines on one device take turns, step by step
            engine.apart = each_step or any(sharing[device] > 1 for device in engine.devices)
        self.expected = 0
        """Requests of the trace."""
        self.arrived: Counter[str] = Counter()
        """Requests so far, by model."""
        self.recent: defaultdict[str, deque[tuple[int, int]]] = defaultdict(
            lambda: deque(maxlen=KEPT_LENGTHS)
        )
        """Prompt and answer tokens of the latest requests that ended, by model."""
        self.ended = 0
        """Requests that are done with."""
        self.holds = False
        """Whether requests wait while no engine is ready, instead of being refused."""
        self.held: list[RequestRecord] = []
        """Those that do."""
        self.records: dict[str, RequestRecord] = {}
        self.followers: dict[str, list[TraceItem]] = defaultdict(list)
        """Items that wait for the item of this id."""
        self.awaited: dict[str, int] = {}
        """Per waiting item, how many it still waits for."""
        self.calls: list[Call] | None = None
        """Calls of runs that a scaler has not been shown yet; None: nobody is to see them."""
        self.run_began_s: dict[str, float] = {}
        """Per run, when its first request arrived."""
        self.targets: dict[str, tuple[Target, ...]] = {}
        """Per engine that computes prompts alone, those that may answer."""
        self.free_s: dict[str, float] = {}
        """Per device of several engines, when the step under way on it ends."""
        self._queue: list[tuple[float, int, int, Event]] = []
        self._count = 0

    def schedule(self, at_s: float, event: Event) -> None:
        """Puts an event into the queue."""
        heapq.heappush(self._queue, (at_s, event.priority, self._count, event))
        self._count += 1

    @property
    def ready(self) -> list[SimulatedEngine]:
        """The engines that take requests now."""
        return [engine for engine in self.engines.values() if engine.state == "ready"]

    def run(self, tell: Callable[[int], None] | None = None) -> None:
        """Fires events until none are left; `tell` hears now and then how many requests have ended."""
        fired = 0
        while self._queue:
            at_s, _, _, event = heapq.heappop(self._queue)
            self.clock.now_s = at_s
            for next_s, following in event.fire(self):
                self.schedule(next_s, following)
            fired += 1
            if tell is not None and fired % TELL_EVERY == 0:
                tell(self.ended)

    def check_integrity(self) -> None:
        """Raises AssertionError unless every engine is idle and its books agree."""
        for engine in self.engines.values():
            assert not engine.in_flight, f"engine {engine.name!r} ended with {len(engine.in_flight)} requests"
            assert engine.queued_tokens == 0, f"engine {engine.name!r} counts tokens that do not wait"
            engine.engine.check_integrity()
