"""Machines that fail or are taken back: what they held is lost, and their requests are computed elsewhere.

    ready --notice--> draining --at_s--> failed --for_s--> spare --scaler--> starting --cold start--> ready

A request that is moved goes on behind the tokens that came out already: its prompt and these are computed
again. A step that is under way is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.simulator.control import FleetControl
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.events import Following, cut_short, dispatch
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.scaling_events import decide_now
from pentad.resource.simulator.world import Event, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A device is away for a while: a failure, or the end of a spot lease."""

    device: str
    at_s: float
    for_s: float | None = None
    """None: for good."""
    notice_s: float = 0.0
    """How long before it is announced: from then on its engines take no new requests."""

    def __post_init__(self) -> None:
        in_range("at_s", self.at_s, least=0)
        in_range("for_s", self.for_s, above=0)
        in_range("notice_s", self.notice_s, least=0)


def enter_outage(world: World, outage: Outage, control: FleetControl) -> None:
    """Puts an outage into a world."""
    if outage.notice_s:
        world.schedule(max(0.0, outage.at_s - outage.notice_s), Notice(outage))
    world.schedule(outage.at_s, Failure(outage, control))


def engines_on(world: World, device: str) -> list[SimulatedEngine]:
    """The engines that need the device."""
    return [engine for engine in world.engines.values() if device in engine.devices]


@dataclass(frozen=True, slots=True)
class Notice:
    """It is said that a device will go: its engines end what they have, and take nothing more."""

    priority: ClassVar[int] = -2
    outage: Outage

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        for engine in engines_on(world, self.outage.device):
            engine.leaving, engine.leaves_s = True, self.outage.at_s
            if engine.up:
                engine.state = "draining"
                if not engine.in_flight:
                    engine.give_devices_back(world.clock())
            else:
                engine.state = "failed"
        return ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A device is gone, with all that its engines held."""

    priority: ClassVar[int] = -2
    outage: Outage
    control: FleetControl

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        now_s = world.clock()
        lost = [record for engine in engines_on(world, self.outage.device) for record in fail(world, engine)]
        world.free_s.pop(self.outage.device, None)
        following: Following = list(decide_now(world, self.control))
        for record in lost:
            following += dispatch(world, record)
        if self.outage.for_s is not None:
            following.append((now_s + self.outage.for_s, Return(self.outage, self.control)))
        return following


def fail(world: World, engine: SimulatedEngine) -> list[RequestRecord]:
    """Takes an engine away; the requests that it had, which are to be given to others."""
    cut_short(world, engine)  # steps that are over have given their tokens
    now_s = world.clock()
    records = list(engine.in_flight.values())
    for record in records:
        while record.token_times_s and record.token_times_s[-1] > now_s + record.back_s:
            record.token_times_s.pop()  # of the step under way
            record.tokens.pop()
        record.moves += 1
        if record.token_times_s:
            record.recomputed_tokens += record.item.prompt_tokens + len(record.tokens)
    engine.lose_all(now_s)
    return records


@dataclass(frozen=True, slots=True)
class Return:
    """A device is back, empty; the scaler says whether an engine starts on it."""

    priority: ClassVar[int] = 0
    outage: Outage
    control: FleetControl

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        for engine in engines_on(world, self.outage.device):
            engine.leaving, engine.leaves_s, engine.state = False, None, "spare"
        return decide_now(world, self.control)
