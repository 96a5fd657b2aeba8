"""FleetControl: a scaler at work in a world."""

from __future__ import annotations

from dataclasses import dataclass, field

from pentad.resource.scaling.base import FleetScaler, Member, Place, Pool, ScalerInput, Scaling
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.world import World
from pentad.types import Decision


@dataclass(slots=True, kw_only=True)
class FleetControl:
    """Shows a world's engines to a scaler and does what it decides.

    Args:
        scaler: the fleet scaler that is used live.
        seed: of its draws.
    """

    scaler: FleetScaler
    seed: int = 0
    decisions: list[Decision] = field(default_factory=list)
    starts: int = 0
    """Cold starts."""
    idle_decisions: int = 0
    """In a row that started nothing while requests waited and nothing else went on."""
    _scaling: Scaling = field(init=False)

    def __post_init__(self) -> None:
        self._scaling = self.scaler.start(self.seed)

    def state(self, world: World) -> ScalerInput:
        """The fleet as the scaler sees it now."""
        held: dict[str, int] = {}
        for record in world.held:
            held[record.model] = held.get(record.model, 0) + 1
        taken = {
            device: engine for engine in world.engines.values() for device in engine.devices if engine.up
        }
        pools = {
            model: Pool(
                members=tuple(_member(engine) for engine in engines if engine.up),
                places=tuple(_place(engine) for engine in engines if _startable(engine, taken)),
                waiting=held.get(model, 0),
                arrived=world.arrived.get(model, 0),
            )
            for model, engines in world.pools.items()
        }
        return ScalerInput(pools=pools, now_s=world.clock())

    def decide(self, world: World) -> list[SimulatedEngine]:
        """One decision, carried out; returns the engines whose cold start begins."""
        now_s = world.clock()
        plan = self._scaling.decide(self.state(world))
        self.decisions += plan.decisions
        started: list[SimulatedEngine] = []
        for name in plan.stop:
            stop(world.engines[name], now_s)
        for name in plan.start:
            engine = world.engines[name]
            taken = {device: e for e in world.engines.values() for device in e.devices if e.up}
            if engine.state == "draining":
                engine.state = "ready"
            elif _startable(engine, taken):
                engine.take_devices(now_s)
                started.append(engine)
        starting = any(engine.state == "starting" for engine in world.engines.values())
        stuck = world.held and not starting and not any(e.in_flight for e in world.engines.values())
        self.idle_decisions = self.idle_decisions + 1 if stuck else 0
        self.starts += len(started)
        return started


def stop(engine: SimulatedEngine, now_s: float) -> None:
    """Lets an engine end what it was given, then gives its devices back."""
    engine.state = "draining"
    if not engine.in_flight:
        engine.give_devices_back(now_s)


def _member(engine: SimulatedEngine) -> Member:
    assert engine.state != "spare"
    return Member(
        name=engine.name,
        state=engine.state,
        running=engine.running,
        waiting=engine.waiting,
        slots=engine.slots,
        price_per_s=engine.price_per_s,
    )


def _place(engine: SimulatedEngine) -> Place:
    return Place(
        name=engine.name,
        slots=engine.slots,
        cold_start_s=engine.cold_start_s,
        price_per_s=engine.price_per_s,
    )


def _startable(engine: SimulatedEngine, taken: dict[str, SimulatedEngine]) -> bool:
    """Whether it is spare and no engine of another model has one of its devices."""
    others = (taken[device] for device in engine.devices if device in taken)
    return not engine.up and all(other.spec.name == engine.spec.name for other in others)
