"""Cheap replicas ahead of the load, dear ones that start at once for what was not foreseen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import Pool, ScalerInput, Scaling, ScalingPlan, chosen, joined, told
from pentad.resource.scaling.demand import Calm, Demand, LooksAhead, slots_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(LooksAhead):
    """Starts cheap replicas for the forecast load, and quick ones only for what exceeds them.

    The cheapest places are the steady part: so many are kept up as hold the slots that will be taken once one
    that is started now is ready. Dearer places (serverless ones) start only if they are ready before a steady
    one would be, for requests that the ready replicas have no slot for, and stop as soon as these have.
    Where all places have one price, it is a scaler that looks ahead.

    Source: MArk (Zhang et al., ATC'19, sections 4.3 and 4.4). Our difference: the forecaster learns
    as it goes and is not trained before; batches are formed by the engine's scheduler without timeout.
    """

    target: float = 0.8
    """Share of the steady replicas' slots that the forecast should take, above 0 to 1."""
    coverage: float = 0.5
    """The forecast's upper error bar is what is provided for; this share of loads lies between the bars."""
    calm_s: float = 30.0
    """How long the forecast must have been lower before steady replicas are stopped."""
    burst_calm_s: float = 3.0
    """How long a burst replica must have been superfluous before it is stopped."""

    name: ClassVar[str] = "mark"

    def __post_init__(self) -> None:
        LooksAhead.__post_init__(self)
        in_range("target", self.target, above=0, most=1)
        in_range("calm_s", self.calm_s, least=0)
        in_range("burst_calm_s", self.burst_calm_s, least=0)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Marking(self)


class _Marking:
    """What it has seen of each pool."""

    def __init__(self, scaler: Mark) -> None:
        self._scaler = scaler
        self._demand: dict[str, Demand] = {}
        self._steady: dict[str, Calm[int]] = {}
        self._burst: dict[str, Calm[int]] = {}

    def decide(self, state: ScalerInput) -> ScalingPlan:
        return joined([self._pool(model, pool, state.now_s) for model, pool in state.pools.items()])

    def _pool(self, model: str, pool: Pool, now_s: float) -> ScalingPlan:
        scaler = self._scaler
        demand = self._demand.get(model)
        if demand is None:
            demand = self._demand[model] = scaler.demand()
            self._steady[model], self._burst[model] = Calm(scaler.calm_s), Calm(scaler.burst_calm_s)
        demand.look(pool, now_s)
        steady, burst = tiers(pool)
        slots = slots_of(pool)
        foreseen = math.ceil(demand.ahead().high / (slots * scaler.target))
        needed = math.ceil(pool.in_flight / slots)
        if not burst.members and not burst.places:
            foreseen = max(foreseen, needed)  # nothing else takes what was not foreseen
        wanted = self._steady[model].highest(now_s, max(foreseen, scaler.least))
        start, stop, short = chosen(steady, wanted)
        ready = sum(member.state == "ready" for member in steady.members) - len(stop)
        extra = self._burst[model].highest(now_s, max(0, needed - ready))
        more, fewer, lacking = chosen(burst, extra)
        return told(
            pool,
            (*start, *more),
            (*stop, *fewer),
            policy=scaler.name,
            model=model,
            now_s=now_s,
            wanted=wanted + extra,
            constraint="places" if short or lacking else "burst" if more else "forecast",
            scores=(("steady", float(wanted)), ("burst", float(extra))),
        )


def tiers(pool: Pool) -> tuple[Pool, Pool]:
    """The cheapest members and places of a pool, and the dearer ones."""
    prices = [*(m.price_per_s for m in pool.members), *(p.price_per_s for p in pool.places)]
    least = min(prices, default=0.0) * 1.001
    steady = replace(
        pool,
        members=tuple(each for each in pool.members if each.price_per_s <= least),
        places=tuple(each for each in pool.places if each.price_per_s <= least),
    )
    burst = replace(
        pool,
        members=tuple(each for each in pool.members if each.price_per_s > least),
        places=tuple(each for each in pool.places if each.price_per_s > least),
    )
    return steady, burst
