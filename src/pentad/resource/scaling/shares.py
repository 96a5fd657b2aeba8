"""Every model's share of the devices follows its share of the demand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import Pool, ScalerInput, Scaling, ScalingPlan, joined, to_size
from pentad.resource.scaling.demand import Calm, Demand, slots_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Gives each model the replicas that its demand needs; when there are too few devices, in proportion.

    Demand is what runs and waits, or what the forecast says where that is more. Where devices lack, who has
    demand has one replica and the rest are shared out by largest remainder, so a model above its share gives
    replicas up to one below. Suited for models (or classes of agents) that share devices.

    Source: the survey's workload-aware dynamic GPU allocation (section V-A3); shares by demand per
    interval, with the forecast of ours.
    """

    target: float = 0.7
    """Share of the replicas' slots that requests should take, above 0 to 1."""
    horizon_s: float = 15.0
    """How far ahead it looks: about a cold start and some decisions."""
    bin_s: float = 5.0
    """Width of the bins that arrivals are counted in."""
    calm_s: float = 20.0
    """How long less must have been needed before replicas are stopped."""
    interval_s: float = 1.0
    """Seconds between decisions."""

    name: ClassVar[str] = "shares"
    least_replicas: ClassVar[int] = 0
    colocates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        in_range("target", self.target, above=0, most=1)
        in_range("horizon_s", self.horizon_s, least=0)
        in_range("bin_s", self.bin_s, above=0)
        in_range("calm_s", self.calm_s, least=0)
        in_range("interval_s", self.interval_s, above=0)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return Sharing(self)

    def cost(self, members: int) -> float:
        return 4e-5 + 2e-6 * members


class Sharing:
    """What it has seen of each pool; who gets how much where devices lack is `given`."""

    def __init__(self, scaler: Shares) -> None:
        self._scaler = scaler
        self._demand: dict[str, Demand] = {}
        self._calm: dict[str, Calm[int]] = {}
        self._devices = 0
        """The most replicas that were up at once, places for further ones included."""

    def decide(self, state: ScalerInput) -> ScalingPlan:
        wanted = {model: self._wanted(model, pool, state.now_s) for model, pool in state.pools.items()}
        up = {model: len(pool.members) for model, pool in state.pools.items()}
        # Places of several pools may stand for one device: the most of one pool are surely different ones.
        free = max((len(pool.places) for pool in state.pools.values()), default=0)
        self._devices = max(self._devices, sum(up.values()) + free)
        given = self.given(state.pools, wanted)
        return joined(
            [
                to_size(
                    pool,
                    given[model],
                    policy=self._scaler.name,
                    model=model,
                    now_s=state.now_s,
                    constraint="devices" if given[model] < wanted[model] else None,
                )
                for model, pool in state.pools.items()
            ]
        )

    def given(self, pools: Mapping[str, Pool], wanted: Mapping[str, int]) -> dict[str, int]:  # noqa: ARG002
        """How many replicas each model gets of the devices that there are."""
        return apportioned(wanted, self._devices)

    def _wanted(self, model: str, pool: Pool, now_s: float) -> int:
        scaler = self._scaler
        if model not in self._demand:
            self._demand[model] = Demand(bin_s=scaler.bin_s, horizon_s=scaler.horizon_s)
            self._calm[model] = Calm(scaler.calm_s)
        demand = self._demand[model]
        demand.look(pool, now_s)
        slots = max(pool.in_flight, demand.ahead().mean, min(demand.came, 1))
        return self._calm[model].highest(now_s, math.ceil(slots / (slots_of(pool) * scaler.target)))


def apportioned(wanted: Mapping[str, int], devices: int) -> dict[str, int]:
    """So many devices shared out by what is wanted: all of it where they suffice, else by largest remainder.

    Who wants any gets one before the rest is shared out, as long as there are devices; ties go to the first.
    """
    total = sum(wanted.values())
    if total <= devices:
        return dict(wanted)
    given = dict.fromkeys(wanted, 0)
    for model in [name for name, number in wanted.items() if number][:devices]:
        given[model] = 1
    while sum(given.values()) < devices:
        short = max(wanted, key=lambda name: wanted[name] * devices / total - given[name])
        given[short] += 1
    return given
