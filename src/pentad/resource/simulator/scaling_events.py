"""How engines come and go in a world: the scaler's looks at it, and the ends of cold starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pentad.errors import Unavailable
from pentad.resource.simulator.control import FleetControl
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.events import Following, dispatch, ended
from pentad.resource.simulator.world import Event, World

IDLE_DECISIONS = 1000
"""After so many that start nothing, with nothing else going on, what waits is refused."""


def begin(world: World, control: FleetControl) -> None:
    """Puts a scaler into a world. What its first decision starts is warm: the load meets a fleet at work."""
    world.holds, world.calls = True, []
    for engine in world.engines.values():
        engine.state = "spare"
    for engine in control.decide(world):
        engine.state = "ready"
    control.starts = 0
    world.schedule(control.scaler.interval_s, Tick(control))


def decide_now(world: World, control: FleetControl) -> Following:
    """A decision of the scaler at this instant; the ends of the cold starts that it begins."""
    now_s = world.clock()
    return [
        (now_s + control.start_s(engine, world), Ready(engine, now_s)) for engine in control.decide(world)
    ]


@dataclass(frozen=True, slots=True)
class Tick:
    """The scaler looks at the fleet; again after its interval, while there are requests to come."""

    priority: ClassVar[int] = 2
    control: FleetControl

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        now_s = world.clock()
        following = decide_now(world, self.control)
        if self.control.idle_decisions >= IDLE_DECISIONS:
            following += _refuse_held(world)
        elif world.held and world.ready:  # a draining engine is kept after all
            following += release(world)
        if world.ended < world.expected:
            following.append((now_s + self.control.scaler.interval_s, self))
        return following


@dataclass(frozen=True, slots=True)
class Ready:
    """A cold start is over: the engine takes requests, first those that wait for one."""

    priority: ClassVar[int] = 0
    engine: SimulatedEngine
    started_s: float

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        if self.engine.state != "starting" or self.engine.since_s != self.started_s:
            return ()  # stopped again meanwhile
        self.engine.state = "ready"
        return release(world)


def release(world: World) -> Following:
    """Gives the requests that wait for an engine to those that are ready now."""
    held, world.held = world.held, []
    return [event for record in held for event in dispatch(world, record)]


def _refuse_held(world: World) -> Following:
    held, world.held = world.held, []
    for record in held:
        record.refusal = Unavailable.code
    return [event for record in held for event in ended(world, record, world.clock())]
