"""Replicas moved off devices that are taken away, before they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import (
    Member,
    Place,
    Pool,
    Replica,
    ScalerInput,
    Scaling,
    ScalingPlan,
    joined,
    told,
)
from pentad.resource.scaling.demand import Calm, Demand, LooksAhead
from pentad.resource.scaling.speed import capacity, needed_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Spotserve(LooksAhead):
    """Holds the load with replicas on disjoint devices, none of which is about to be taken away.

    Places may be different parallel shapes over the same devices. When a member's end is announced, its
    devices no longer count: others are started for the load, in time for their cold start, and the member
    takes no new requests. Ordinary members are kept as long as they suffice; spot places are taken before
    dearer ones.

    Source: SpotServe (Miao et al., ASPLOS'24, sections 3 and 4.1). Our difference: which part of the weights
    each device keeps is `reparallel.migrate`'s to say; here a replica starts or stops as a whole.
    """

    target: float = 0.8
    """Share of what the replicas can answer that the load should be, above 0 to 1."""
    drain_s: float = 10.0
    """In how long requests that wait should be answered."""
    calm_s: float = 60.0
    """How long less must have been needed before replicas are stopped."""

    name: ClassVar[str] = "spotserve"

    def __post_init__(self) -> None:
        LooksAhead.__post_init__(self)
        in_range("target", self.target, above=0, most=1)
        in_range("drain_s", self.drain_s, above=0)
        in_range("calm_s", self.calm_s, least=0)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Moving(self)

    def cost(self, members: int) -> float:
        return 1e-4 + 5e-6 * members


class _Moving:
    """What it has seen of each pool."""

    def __init__(self, scaler: Spotserve) -> None:
        self._scaler = scaler
        self._demand: dict[str, Demand] = {}
        self._calm: dict[str, Calm[float]] = {}

    def decide(self, state: ScalerInput) -> ScalingPlan:
        leaving = {
            device
            for pool in state.pools.values()
            for member in pool.members
            if member.leaves_s is not None
            for device in member.devices or (member.name,)
        }
        return joined([self._pool(model, pool, leaving, state.now_s) for model, pool in state.pools.items()])

    def _pool(self, model: str, pool: Pool, leaving: set[str], now_s: float) -> ScalingPlan:
        scaler = self._scaler
        if model not in self._demand:
            self._demand[model] = scaler.demand()
        demand = self._demand[model]
        demand.look(pool, now_s)
        known = capacity(pool, demand)
        able = known or (lambda each: float(each.slots))
        if model not in self._calm or known is None:
            self._calm[model] = Calm(scaler.calm_s)
        taken = float(max(pool.in_flight, min(demand.came, 1)))
        need = taken if known is None else needed_per_s(pool, demand, scaler.drain_s)
        need = self._calm[model].highest(now_s, need / scaler.target)

        def safe(replica: Replica) -> bool:
            return not leaving & set(replica.devices or (replica.name,))

        up = [member for member in pool.members if member.state != "draining"]
        kept = _enough(sorted(filter(safe, up), key=lambda each: -able(each)), able, need, scaler.least)
        ready = sum(able(member) for member in kept if member.state == "ready")
        held = sum(able(member) for member in kept)
        busy = {device for member in pool.members for device in member.devices}
        start: list[Replica] = []
        there = {member.name for member in up}
        spare = [each for each in pool.replicas if each.name not in there and safe(each)]
        # What drains is kept first, then what is cheapest for what it answers.
        for each in sorted(spare, key=lambda each: (isinstance(each, Place), _price(each, able))):
            if held >= need - 1e-9 and len(kept) + len(start) >= scaler.least:
                break
            if isinstance(each, Member) or not busy & set(each.devices):
                start.append(each)
                held += able(each)
                busy |= set(each.devices)
        staying = {member.name for member in kept}
        stop = []
        for member in up:
            # One whose devices leave serves until others are ready, or it is time to end what it was given.
            last = (member.leaves_s or now_s) - now_s <= scaler.drain_s
            if member.name not in staying and (safe(member) or ready >= need or last):
                stop.append(member.name)
        return told(
            pool,
            tuple(each.name for each in start),
            tuple(stop),
            policy=Spotserve.name,
            model=model,
            now_s=now_s,
            wanted=len(up) + len(start) - len(stop),
            constraint="preemption" if any(not safe(m) for m in up) else "places" if held < need else None,
            scores=(("need", need), ("held", held)),
        )


def _price(replica: Replica, able: Callable[[Replica], float]) -> float:
    return replica.price_per_s / max(able(replica), 1e-12)


def _enough(
    members: Sequence[Member], able: Callable[[Replica], float], need: float, least: int
) -> list[Member]:
    """The first of the members that hold the need, `least` of them at any rate."""
    kept: list[Member] = []
    held = 0.0
    for member in members:
        if held < need - 1e-9 or len(kept) < least:
            kept.append(member)
            held += able(member)
    return kept
