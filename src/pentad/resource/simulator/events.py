"""The event loop: small events that return the next ones, ordered by (time, priority, sequence)."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pentad.errors import PentadError
from pentad.execution.engine import Engine
from pentad.execution.request import StepOutput, TokenRequest
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.trace import TraceItem, prompt_of
from pentad.types import Sampling


class Event(Protocol):
    """Something that happens at an instant."""

    priority: ClassVar[int]
    """Among events of one instant, lower happens first."""

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        """Does it, and returns what follows with its instant."""
        ...


class World:
    """One engine on a virtual clock, and the record of every request.

    Args:
        engine: built on `clock`.
        clock: set to each event's instant before it fires.
        items: the trace, with lengths that fit.
        clipped: per item id, the tokens that were cut off it.
        seed: of the prompts' tokens.
    """

    def __init__(
        self,
        engine: Engine,
        clock: VirtualClock,
        items: Iterable[TraceItem],
        *,
        clipped: dict[str, int],
        seed: int,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.seed = seed
        self.clipped = clipped
        self.stepping = False
        self.records: dict[str, RequestRecord] = {}
        self.followers: dict[str, list[TraceItem]] = defaultdict(list)
        self._queue: list[tuple[float, int, int, Event]] = []
        self._count = 0
        for item in items:
            if item.after is None:
                self.schedule(item.arrival_s, Arrival(item))
            else:
                self.followers[item.after].append(item)

    def schedule(self, at_s: float, event: Event) -> None:
        """Puts an event into the queue."""
        heapq.heappush(self._queue, (at_s, event.priority, self._count, event))
        self._count += 1

    def run(self) -> None:
        """Fires events until none are left."""
        while self._queue:
            at_s, _, _, event = heapq.heappop(self._queue)
            self.clock.now_s = at_s
            for next_s, following in event.fire(self):
                self.schedule(next_s, following)

    def ended(self, item: TraceItem, at_s: float) -> list[tuple[float, Event]]:
        """The arrivals that waited for this item."""
        return [(at_s + nxt.pause_s, Arrival(nxt)) for nxt in self.followers.pop(item.id, ())]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request reaches the engine, which takes or refuses it."""

    priority: ClassVar[int] = 0
    item: TraceItem

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        now_s = world.clock()
        record = RequestRecord(
            item=self.item, arrived_s=now_s, clipped_tokens=world.clipped.get(self.item.id, 0)
        )
        world.records[self.item.id] = record
        try:
            world.engine.add(request_of(self.item, world.engine.runner.spec.vocab_size, seed=world.seed))
        except PentadError as error:
            record.refusal = error.code
            return world.ended(self.item, now_s)
        if world.stepping:
            return ()
        world.stepping = True
        return ((now_s, Step()),)


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step begins; it takes the virtual time that the runner lets pass."""

    priority: ClassVar[int] = 1

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        begin_s = world.clock()
        outputs = world.engine.step()
        end_s = world.clock()
        assert outputs or end_s > begin_s, "the engine has work and makes no progress"
        following: list[tuple[float, Event]] = []
        for output in outputs:
            record = world.records[output.id]
            note(record, output, end_s)
            if record.finished_s is not None:
                following += world.ended(record.item, end_s)
        if world.engine.has_work:
            following.append((end_s, Step()))
        else:
            world.stepping = False
        return following


def note(record: RequestRecord, output: StepOutput, at_s: float) -> None:
    """Enters what one step did for a request; used live and simulated."""
    for drawn in output.drawn:
        record.token_times_s.append(at_s)
        record.tokens.append(drawn.token)
    if output.stats is not None:
        record.finished_s = at_s
        record.cached_tokens = output.stats.cached_tokens
        record.preemptions = output.stats.preemptions
    if output.error is not None:
        record.refusal = output.error.code


def request_of(item: TraceItem, vocab_size: int, *, seed: int = 0) -> TokenRequest:
    """The request that stands for a trace item: greedy, and exactly as long as the trace says."""
    return TokenRequest(
        id=item.id,
        prompt=prompt_of(item, vocab_size, seed=seed),
        sampling=Sampling(temperature=0.0, ignore_eos=True),
        max_tokens=item.output_tokens,
        tenant=item.tenant,
        priority=item.priority,
    )
