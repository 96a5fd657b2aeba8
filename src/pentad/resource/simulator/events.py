"""What happens in a world: small events that return the next ones.

Arrival --> Delivery --> Step --> StepEnd --> Step ...
                                     `-----> Arrival of what waited for a request that ended
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.errors import PentadError
from pentad.execution.request import StepOutput, TokenRequest
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.trace import TraceItem, prompt_of
from pentad.resource.simulator.world import Event, World
from pentad.types import Hints, RunContext, Sampling

Following = list[tuple[float, Event]]


def enter(world: World, items: Iterable[TraceItem]) -> None:
    """Puts a trace into a world: each item arrives at its time, or behind the item that it waits for."""
    for item in items:
        world.expected += 1
        if item.after is None:
            world.schedule(item.arrival_s, Arrival(item))
        else:
            world.followers[item.after].append(item)


def ended(world: World, record: RequestRecord, at_s: float) -> Following:
    """A request is done with; returns the arrivals that waited for it."""
    world.ended += 1
    if world.placing is not None and record.engine:
        busy_s = record.completion_s if record.completed else 0.0
        world.placing.learn(record, busy_s * world.engines[record.engine].price_per_s)
    return [(at_s + nxt.pause_s, Arrival(nxt)) for nxt in world.followers.pop(record.item.id, ())]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request arises; it is given to an engine and goes on its way there, or is refused."""

    priority: ClassVar[int] = 0
    item: TraceItem

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        now_s = world.clock()
        record = RequestRecord(
            item=self.item, arrived_s=now_s, clipped_tokens=world.clipped.get(self.item.id, 0)
        )
        world.records[self.item.id] = record
        record.model = next(iter(world.pools))
        world.arrived[record.model] += 1
        return dispatch(world, record)


def dispatch(world: World, record: RequestRecord) -> Following:
    """Gives a request to an engine and sends it on its way there, holds it back, or refuses it."""
    now_s = world.clock()
    able = world.ready
    if not able and world.holds:
        world.held.append(record)
        return []
    if world.placing is None:
        engine = able[0]
        engine.take(record)
        return list(Delivery(record, engine).fire(world))
    try:
        engine = world.placing.choose(record, able, now_s)
    except PentadError as error:
        record.refusal = error.code
        return ended(world, record, now_s)
    engine.take(record)
    way_s, record.back_s = world.placing.way_s(record, engine)
    delivery = Delivery(record, engine)
    return [(now_s + way_s, delivery)] if way_s else list(delivery.fire(world))


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request reaches its engine, which takes or refuses it."""

    priority: ClassVar[int] = 0
    record: RequestRecord
    engine: SimulatedEngine

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        record, engine, now_s = self.record, self.engine, world.clock()
        try:
            behind = world.followers.get(record.item.id, ())
            engine.engine.add(request_of(record.item, engine.spec.vocab_size, seed=world.seed, behind=behind))
        except PentadError as error:
            record.refusal = error.code
            engine.end(record, now_s)
            return ended(world, record, now_s)
        if engine.stepping:
            return ()
        engine.stepping = True
        return ((now_s, Step(engine)),)


@dataclass(frozen=True, slots=True)
class Step:
    """An engine step begins; it takes the virtual time that the runner lets pass."""

    priority: ClassVar[int] = 1
    engine: SimulatedEngine

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        begin_s = world.clock()
        free_s = max((world.free_s.get(device, 0.0) for device in self.engine.devices), default=0.0)
        if free_s > begin_s:  # another engine's step is under way on one of the devices
            return ((free_s, self),)
        outputs = self.engine.engine.step()
        end_s = world.clock()
        assert outputs or end_s > begin_s, "the engine has work and makes no progress"
        for device in self.engine.devices:
            world.free_s[device] = end_s
        return ((end_s, StepEnd(self.engine, outputs)),)


@dataclass(frozen=True, slots=True)
class StepEnd:
    """An engine step is over: its tokens come out, and the next step begins if there is work."""

    priority: ClassVar[int] = -1
    engine: SimulatedEngine
    outputs: Sequence[StepOutput]

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        engine, now_s = self.engine, world.clock()
        following: Following = []
        for output in self.outputs:
            record = world.records[output.id]
            first = not record.token_times_s
            note(record, output, now_s + record.back_s)
            if first and record.token_times_s:
                engine.first_token(record)
            if output.stats is not None or output.error is not None:
                engine.end(record, now_s)
                following += ended(world, record, now_s + record.back_s)
        engine.stepping = engine.engine.has_work
        if engine.stepping:
            following.append((now_s, Step(engine)))
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


def request_of(
    item: TraceItem, vocab_size: int, *, seed: int = 0, behind: Sequence[TraceItem] = ()
) -> TokenRequest:
    """The request that stands for a trace item: greedy, and exactly as long as the trace says.

    It announces the items that wait for it (`behind`), as agents do.
    """
    return TokenRequest(
        id=item.id,
        prompt=prompt_of(item, vocab_size, seed=seed),
        sampling=Sampling(temperature=0.0, ignore_eos=True),
        max_tokens=item.output_tokens,
        tenant=item.tenant,
        priority=item.priority,
        context=RunContext(parent=item.after, hints=_hints(item, behind)),
    )


def _hints(item: TraceItem, behind: Sequence[TraceItem]) -> Hints:
    if not behind:
        return Hints(next=None if item.after is None else "end")
    return Hints(next="tool", tool_s=min(each.pause_s for each in behind), fan_out=len(behind))
