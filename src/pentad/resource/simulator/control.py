"""FleetControl: a scaler at work in a world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pentad.resource.scaling.base import FleetScaler, Host, Member, Place, Pool, ScalerInput, Scaling
from pentad.resource.scaling.speed import Speed
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.world import World
from pentad.types import Decision


@dataclass(slots=True, kw_only=True)
class FleetControl:
    """Shows a world's engines to a scaler and does what it decides.

    Args:
        scaler: the fleet scaler that is used live.
        seed: of its draws.
        hosts: machines that can be rented, by name.
    """

    scaler: FleetScaler
    seed: int = 0
    hosts: Mapping[str, Host] = field(default_factory=dict)
    """Machines that can be rented."""
    decisions: list[Decision] = field(default_factory=list)
    starts: int = 0
    """Cold starts."""
    wasted: int = 0
    """Of these, engines that were stopped again before they had been given anything."""
    idle_decisions: int = 0
    """In a row that started nothing while requests waited and nothing else went on."""
    _scaling: Scaling = field(init=False)
    _served: dict[str, int] = field(default_factory=dict)
    """What an engine had been given when it was started."""

    def __post_init__(self) -> None:
        self._scaling = self.scaler.start(self.seed)

    def state(self, world: World) -> ScalerInput:
        """The fleet as the scaler sees it now."""
        held: dict[str, int] = {}
        for record in world.held:
            held[record.model] = held.get(record.model, 0) + 1
        taken = self._taken(world)
        deadline_s = None if world.placing is None else world.placing.context.objective.deadline_s
        pools = {
            model: Pool(
                members=tuple(_member(engine) for engine in engines if engine.up),
                places=tuple(_place(engine) for engine in engines if _startable(engine, taken)),
                waiting=held.get(model, 0),
                arrived=world.arrived.get(model, 0),
                recent=tuple(world.recent[model]),
                deadline_s=deadline_s,
            )
            for model, engines in world.pools.items()
        }
        calls, world.calls = tuple(world.calls or ()), []
        return ScalerInput(pools=pools, now_s=world.clock(), hosts=self.hosts, calls=calls)

    def decide(self, world: World) -> list[SimulatedEngine]:
        """One decision, carried out; returns the engines whose cold start begins."""
        now_s = world.clock()
        plan = self._scaling.decide(self.state(world))
        self.decisions += plan.decisions
        started: list[SimulatedEngine] = []
        for name in plan.stop:
            self.wasted += self._served.pop(name, -1) == world.engines[name].served
            stop(world.engines[name], now_s)
        for name in plan.start:
            engine = world.engines[name]
            taken = self._taken(world)
            if engine.state == "draining":
                engine.state = engine.state if engine.leaving else "ready"
            elif _startable(engine, taken):
                engine.take_devices(now_s)
                self._served[name] = engine.served
                started.append(engine)
        starting = any(engine.state == "starting" for engine in world.engines.values())
        stuck = world.held and not starting and not any(e.in_flight for e in world.engines.values())
        self.idle_decisions = self.idle_decisions + 1 if stuck else 0
        self.starts += len(started)
        return started

    def start_s(self, engine: SimulatedEngine, world: World) -> float:
        """Seconds until an engine whose devices were just taken can step; its machine may start first."""
        host = self.hosts.get(engine.host)
        others = (each for each in world.engines.values() if each is not engine and each.host == engine.host)
        alone = host is not None and not any(each.up for each in others)
        return engine.cold_start_s + (host.start_s if host is not None and alone else 0.0)

    def _taken(self, world: World) -> dict[str, SimulatedEngine]:
        """By device, an engine that keeps those of other models off it."""
        if self.scaler.colocates:
            return {}
        return {device: engine for engine in world.engines.values() for device in engine.devices if engine.up}


def stop(engine: SimulatedEngine, now_s: float) -> None:
    """Lets an engine end what it was given, then gives its devices back."""
    engine.state = "draining"
    if not engine.in_flight:
        engine.give_devices_back(now_s)


def _member(engine: SimulatedEngine) -> Member:
    assert engine.state != "spare"
    assert engine.state != "failed"
    return Member(
        name=engine.name,
        state=engine.state,
        running=engine.running,
        waiting=engine.waiting,
        slots=engine.slots,
        price_per_s=engine.price_per_s,
        devices=engine.devices,
        speed=_speed(engine),
        quality=engine.quality,
        host=engine.host,
        spot=engine.spot,
        leaves_s=engine.leaves_s,
    )


def _place(engine: SimulatedEngine) -> Place:
    return Place(
        name=engine.name,
        slots=engine.slots,
        cold_start_s=engine.cold_start_s,
        price_per_s=engine.price_per_s,
        devices=engine.devices,
        speed=_speed(engine),
        quality=engine.quality,
        host=engine.host,
        spot=engine.spot,
    )


def _speed(engine: SimulatedEngine) -> Speed:
    pace = engine.pace
    return Speed(prompt_token_s=pace.prompt_token_s, alone_s=pace.alone_s, full_s=pace.full_s)


def _startable(engine: SimulatedEngine, taken: dict[str, SimulatedEngine]) -> bool:
    """Whether it is spare and no engine of another model has one of its devices."""
    others = (taken[device] for device in engine.devices if device in taken)
    return engine.state == "spare" and all(other.spec.name == engine.spec.name for other in others)
