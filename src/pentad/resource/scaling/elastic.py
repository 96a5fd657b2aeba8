"""No more devices than the forecast asks for: none at night, idle ones for other models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import Pool, ScalerInput, Scaling, ScalingPlan, joined, to_size
from pentad.resource.scaling.demand import Calm, Demand, LooksAhead, slots_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic(LooksAhead):
    """Keeps as many replicas as the load now and the forecast one need, down to none.

    A model whose next request is unlikely within a cold start has no replica. An idle replica of one model is
    stopped at once when another model has requests and no place, since their places may be one device.

    Source: the survey's elastic allocation for cost (section VII-D2), by the forecast that MArk
    (Zhang et al., ATC'19) plans ahead with; ours is without a second, dearer tier.
    """

    target: float = 0.7
    """Share of the replicas' slots that requests should take, above 0 to 1."""
    calm_s: float = 60.0
    """How long less must have been needed before replicas are stopped."""
    idle_chance: float = 0.2
    """With a smaller chance of a request within the horizon a model has no replica, 0 to 1; 0: it always has
    one once it was asked for."""

    name: ClassVar[str] = "elastic"

    def __post_init__(self) -> None:
        LooksAhead.__post_init__(self)
        in_range("target", self.target, above=0, most=1)
        in_range("calm_s", self.calm_s, least=0)
        in_range("idle_chance", self.idle_chance, least=0, most=1)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Stretching(self)


class _Stretching:
    """What it has seen of each pool."""

    def __init__(self, scaler: Elastic) -> None:
        self._scaler = scaler
        self._demand: dict[str, Demand] = {}
        self._calm: dict[str, Calm[int]] = {}

    def decide(self, state: ScalerInput) -> ScalingPlan:
        now = {model: self._needed(model, pool, state.now_s) for model, pool in state.pools.items()}
        starved = _starved(state.pools, now)
        plans = []
        for model, pool in state.pools.items():
            needed, foreseen = now[model]
            wanted = max(needed, foreseen, self._scaler.least)
            held = self._calm[model].highest(state.now_s, wanted)
            yields = starved - {model}
            # To others it gives what stands idle, and no more than they ask for.
            busy = sum(m.state == "starting" or bool(m.running + m.waiting) for m in pool.members)
            size = min(held, max(needed, self._scaler.least, busy)) if yields else held
            constraint = "another model" if yields and size < held else _why(needed, foreseen, held)
            plans.append(
                to_size(
                    pool,
                    size,
                    policy=self._scaler.name,
                    model=model,
                    now_s=state.now_s,
                    constraint=constraint,
                )
            )
        return joined(plans)

    def _needed(self, model: str, pool: Pool, now_s: float) -> tuple[int, int]:
        """Replicas for the requests that are there, and for those that are expected."""
        scaler = self._scaler
        if model not in self._demand:
            self._demand[model] = scaler.demand()
            self._calm[model] = Calm(scaler.calm_s)
        demand = self._demand[model]
        demand.look(pool, now_s)
        places = slots_of(pool) * scaler.target
        needed = math.ceil(max(pool.in_flight, min(demand.came, 1)) / places)
        chance = 1 - math.exp(-demand.rate().mean * max(scaler.horizon_s, scaler.bin_s))
        foreseen = math.ceil(demand.ahead().high / places) if chance > scaler.idle_chance else 0
        return needed, foreseen


def _starved(pools: Mapping[str, Pool], needed: Mapping[str, tuple[int, int]]) -> set[str]:
    """Models whose requests wait for a replica that has no place."""
    return {
        model
        for model, pool in pools.items()
        if needed[model][0] > sum(member.state != "draining" for member in pool.members) and not pool.places
    }


def _why(needed: int, foreseen: int, held: int) -> str | None:
    if held == needed:
        return None
    return "forecast" if held == foreseen else "calm"
