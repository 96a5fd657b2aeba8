"""What happens in a world: small events that return the next ones.

Arrival --> Delivery --> Step --> StepEnd --> Step ...
                                     |-----> Received, where another engine answers (handovers.py)
                                     `-----> Arrival of what waited for a request that ended
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pentad.errors import PentadError
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.steady import SteadySteps
from pentad.resource.scaling.next_stages import Call
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.trace import TraceItem, prompt_of
from pentad.resource.simulator.world import Event, World
from pentad.types import Hints, Objective, RunContext, Sampling

Following = list[tuple[float, Event]]


def enter(world: World, items: Iterable[TraceItem]) -> None:
    """Puts a trace into a world: each item arrives at its time, or behind the item that it waits for."""
    for item in items:
        world.expected += 1
        if not item.waits_for:
            world.schedule(item.arrival_s, Arrival(item))
            continue
        world.awaited[item.id] = len(item.waits_for)
        for other in item.waits_for:
            world.followers[other].append(item)


def ended(world: World, record: RequestRecord, at_s: float) -> Following:
    """A request is done with; returns the arrivals that waited for it."""
    _show(world, record, at_s, ended=True)
    world.ended += 1
    world.recent[record.model].append((record.item.prompt_tokens, record.item.output_tokens))
    if world.placing is not None and record.engine:
        busy_s = record.completion_s if record.completed else 0.0
        record.cost = busy_s * world.engines[record.engine].price_per_s
        world.placing.learn(record, record.cost)
    following: Following = []
    for nxt in world.followers.pop(record.item.id, ()):
        world.awaited[nxt.id] -= 1
        if not world.awaited[nxt.id]:
            following.append((at_s + nxt.pause_s, Arrival(nxt)))
    return following


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
        record.model = self.item.model or next(iter(world.pools))
        world.arrived[record.model] += 1
        _show(world, record, now_s, ended=False)
        run = self.item.root or self.item.run
        if run is not None:
            record.run_began_s = world.run_began_s.setdefault(run, now_s)
        return dispatch(world, record)


def _show(world: World, record: RequestRecord, at_s: float, *, ended: bool) -> None:
    """Notes for the scaler that a call of a run begins or ends, with what its sender announces."""
    item, hints = record.item, record.item.hints
    if world.calls is None or item.run is None:
        return
    follows = hints.next if hints is not None and hints.next in world.pools else None
    world.calls.append(
        Call(
            at_s=at_s,
            run=item.run,
            model=record.model,
            ended=ended,
            last=hints is not None and hints.next == "end",
            next_model=follows,
            pause_s=None if hints is None else hints.tool_s,
        )
    )


def dispatch(world: World, record: RequestRecord) -> Following:
    """Gives a request to an engine and sends it on its way there, holds it back, or refuses it."""
    now_s = world.clock()
    able = [e for e in world.ready if e.spec.name == record.model and e.role != "decode"]
    if not able and world.holds:
        world.held.append(record)
        record.held_s = now_s if record.held_s is None else record.held_s
        return []
    if record.held_s is not None:
        record.cold_wait_s, record.held_s = record.cold_wait_s + now_s - record.held_s, None
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
    way_s, record.back_s = world.placing.way_s(record, engine, now_s)
    delivery = Delivery(record, engine, record.moves)
    return [(now_s + way_s, delivery)] if way_s else list(delivery.fire(world))


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request reaches its engine, which takes or refuses it."""

    priority: ClassVar[int] = 0
    record: RequestRecord
    engine: SimulatedEngine
    move: int = 0
    """Which of the engines that it was given to, from 0."""

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        if self.record.moves != self.move:
            return ()  # its engine was lost while it was on its way
        request = _request(world, self.record, self.engine)
        if self.record.moves:  # it goes on behind what came out of the engine that was lost
            request = replace(request, generated=tuple(self.record.tokens))
        if self.engine.role == "prefill":
            request = replace(request, max_tokens=1)
        return _begun(world, self.record, self.engine, request)


@dataclass(frozen=True, slots=True)
class Received:
    """The keys and values of a prompt have come to the engine that answers."""

    priority: ClassVar[int] = 0
    record: RequestRecord
    engine: SimulatedEngine
    request: TokenRequest

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        assert self.engine.received is not None, f"engine {self.engine.name!r} takes no keys and values"
        self.engine.received.receive(self.request)
        return _begun(world, self.record, self.engine, self.request)


def _begun(
    world: World, record: RequestRecord, engine: SimulatedEngine, request: TokenRequest
) -> Iterable[tuple[float, Event]]:
    """A request enters its engine, which begins to step if it stands still, or refuses it."""
    now_s = world.clock()
    cut = cut_short(world, engine)
    try:
        engine.engine.add(request)
    except PentadError as error:
        if engine.received is not None:
            engine.received.forget(request.id)
        record.refusal = error.code
        engine.end(record, now_s)
        return (*cut, *ended(world, record, now_s))
    if engine.stepping:
        return cut
    engine.stepping = True
    return ((now_s, Step(engine, engine.life)),)


@dataclass(frozen=True, slots=True)
class Step:
    """An engine step begins; it takes the virtual time that the runner lets pass."""

    priority: ClassVar[int] = 1
    engine: SimulatedEngine
    life: int = 0

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        if self.engine.life != self.life:
            return ()
        begin_s = world.clock()
        free_s = max((world.free_s.get(device, 0.0) for device in self.engine.devices), default=0.0)
        if free_s > begin_s:  # another engine's step is under way on one of the devices
            return ((free_s, self),)
        if not self.engine.apart and (steady := self.engine.engine.steady()) is not None:
            self.engine.steady = steady
            return ((float(steady.instants[-1]), SteadyEnd(self.engine, steady)),)
        outputs = self.engine.engine.step()
        end_s = world.clock()
        assert outputs or end_s > begin_s, "the engine has work and makes no progress"
        for device in self.engine.devices:
            world.free_s[device] = end_s
        return ((end_s, StepEnd(self.engine, outputs, self.life)),)


@dataclass(frozen=True, slots=True)
class SteadyEnd:
    """A series of steps is over in which each sequence got a token a step; unless it was cut before."""

    priority: ClassVar[int] = -1
    engine: SimulatedEngine
    steady: SteadySteps

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        if self.engine.steady is not self.steady:
            return ()
        take_steps(world, self.engine, len(self.steady))
        return ((world.clock(), Step(self.engine, self.engine.life)),)


def cut_short(world: World, engine: SimulatedEngine) -> Following:
    """Ends the series that an engine is in with the step that is under way now; the end of that step."""
    steady = engine.steady
    if steady is None:
        return []
    count = max(1, int(np.searchsorted(steady.instants[:-1], world.clock(), side="left")))
    take_steps(world, engine, count)
    return [(float(steady.instants[count]), StepEnd(engine, (), engine.life))]


def take_steps(world: World, engine: SimulatedEngine, count: int) -> None:
    """Enters what the first steps of a series did."""
    steady, engine.steady = engine.steady, None
    assert steady is not None, "the engine is in no series of steps"
    instants = steady.instants[1 : count + 1]
    for given in engine.engine.take(steady, count):
        record = world.records[given.id]
        record.token_times_s += (instants + record.back_s).tolist() if record.back_s else instants.tolist()
        record.tokens += given.tokens


@dataclass(frozen=True, slots=True)
class StepEnd:
    """An engine step is over: its tokens come out, and the next step begins if there is work."""

    priority: ClassVar[int] = -1
    engine: SimulatedEngine
    outputs: Sequence[StepOutput]
    life: int = 0

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        engine, now_s = self.engine, world.clock()
        if engine.life != self.life:
            return ()
        following: Following = []
        for output in self.outputs:
            record = world.records[output.id]
            note(record, output, now_s + record.back_s)
            if output.drawn:
                engine.prompt_computed(record)
            if engine.received is not None:
                engine.received.forget(record.item.id)
            if output.stats is not None or output.error is not None:
                engine.end(record, now_s)
                following += _after(world, record, engine)
        engine.stepping = engine.engine.has_work
        if engine.stepping:
            following.append((now_s, Step(engine, engine.life)))
        return following


def _request(world: World, record: RequestRecord, engine: SimulatedEngine) -> TokenRequest:
    behind = world.followers.get(record.item.id, ())
    request = request_of(record.item, engine.spec.vocab_size, seed=world.seed, behind=behind)
    context = replace(request.context, objective=wishes(record, world.clock()))
    return replace(request, context=context)


def _after(world: World, record: RequestRecord, engine: SimulatedEngine) -> Following:
    """What follows when an engine is done with a request: its answer elsewhere, or its end."""
    now_s = world.clock()
    unanswered = record.refusal is None and len(record.tokens) < record.item.output_tokens
    if unanswered and engine.name in world.targets:
        try:
            return _hand_over(world, record, engine)
        except PentadError as error:
            record.refusal = error.code
        finally:
            record.finished_s = None
    return ended(world, record, now_s + record.back_s)


def _hand_over(world: World, record: RequestRecord, source: SimulatedEngine) -> Following:
    """Sends what a prefill engine has computed to one that answers.

    Raises like the offload policy that chooses it, or Infeasible where no link leads to any.
    """
    assert world.placing is not None, "a plan with phases has a policy that places its requests"
    now_s = world.clock()
    whole = _request(world, record, source)
    tokens = (*whole.prompt, *record.tokens)
    request = replace(whole, prompt=tokens, max_tokens=whole.max_tokens - len(record.tokens))
    engine, way_s = world.placing.hand_over(record, source, world.targets[source.name], now_s)
    record.prefilled_by = source.name
    engine.take(record, prefilled=True)
    return [(now_s + way_s, Received(record, engine, request))]


def note(record: RequestRecord, output: StepOutput, at_s: float) -> None:
    """Enters what one step did for a request; used live and simulated."""
    for drawn in output.drawn:
        record.token_times_s.append(at_s)
        record.tokens.append(drawn.token)
    if output.stats is not None:
        record.finished_s = at_s
        record.preemptions += output.stats.preemptions
        if not record.prefilled_by:  # what came over a link was not in any cache
            record.cached_tokens = output.stats.cached_tokens
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
        context=RunContext(
            run_id=item.run,
            parent=item.after,
            hints=item.hints or _hints(item, behind),
            objective=item.objective or Objective(),
            data_label=item.data_label,
        ),
    )


def wishes(record: RequestRecord, now_s: float) -> Objective:
    """What a request wishes that reaches its engine now: of its run's deadline, what is left."""
    own = record.item.objective or Objective()
    if record.item.run_deadline_s is None or record.run_began_s is None:
        return own
    left_s = max(0.0, record.item.run_deadline_s - (now_s - record.run_began_s))
    return replace(own, deadline_s=left_s if own.deadline_s is None else min(left_s, own.deadline_s))


def _hints(item: TraceItem, behind: Sequence[TraceItem]) -> Hints:
    if not behind:
        return Hints(next=None if item.after is None else "end")
    return Hints(next="tool", tool_s=min(each.pause_s for each in behind), fan_out=len(behind))
