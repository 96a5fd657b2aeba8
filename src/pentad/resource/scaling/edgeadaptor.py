"""Variants, machines and quality in one choice per slot, where every start costs what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.ranges import in_range
from pentad.resource.scaling.base import Pool, ScalerInput, Scaling, ScalingPlan, joined
from pentad.resource.scaling.demand import Demand, LooksAhead
from pentad.resource.scaling.mix_plan import mix_plan
from pentad.resource.scaling.recourse import Array, SlotCosts, regularized, rounded
from pentad.resource.scaling.speed import capacity, needed_per_s
from pentad.resource.scaling.variants import variants_of


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeAdaptor(LooksAhead):
    """Holds the load with the mix of variants that is worth its starts, and gives capacity back slowly.

    Chooses configuration, model and machine at once: each is a variant with capacity, price, time to start
    and quality. A slot's choice minimises prices, wrong answers at `error_price`, and the distance from the
    mix before; what is not needed any more goes little by little, the slower the longer it takes to come
    back. Fractions become replicas by draws that are made once, from the seed.
    Exactness: lossy where the variant changes; the metric is the stated quality. Cost: some tens of
    microseconds per model.

    Source: EdgeAdaptor (Zhao et al., IEEE TMC 2023, sections 4 and 5: decomposition over time by
    regularization with relative entropy, randomized rounding). Our difference: the one-slot minimum is in
    closed form up to one price; `eagerness` stands where the proof has log(1 + most / near), which gives
    capacity back within a few slots; the draws stay the same, so that rounding starts nothing.
    """

    eagerness: float = 0.25
    """How fast the mix goes down, above 0: by half in 0.7 / eagerness times the time of a start."""
    near: float = 0.1
    """Replicas that are added to all fractions, so that a variant can come up from none; above 0."""
    error_price: float = 0.0
    """Money that a wrong answer is worth; 0: only prices count."""
    target: float = 0.8
    """Share of what the replicas can answer that the load should be, above 0 to 1."""
    drain_s: float = 10.0
    """In how long requests that wait should be answered."""

    name: ClassVar[str] = "edgeadaptor"

    def __post_init__(self) -> None:
        LooksAhead.__post_init__(self)
        in_range("eagerness", self.eagerness, above=0)
        in_range("near", self.near, above=0)
        in_range("error_price", self.error_price, least=0)
        in_range("target", self.target, above=0, most=1)
        in_range("drain_s", self.drain_s, above=0)

    def start(self, seed: int = 0) -> Scaling:
        return _Adapting(self, seed)

    def cost(self, members: int) -> float:
        return 3e-4 + 3e-6 * members


class _Adapting:
    """The mix of each pool as it stands, in fractions."""

    def __init__(self, scaler: EdgeAdaptor, seed: int) -> None:
        self._scaler = scaler
        self._chance = np.random.default_rng(seed)
        self._demand: dict[str, Demand] = {}
        self._mixes: dict[str, dict[tuple[object, ...], float]] = {}
        self._draws: dict[tuple[object, ...], float] = {}
        self._starts_s: dict[tuple[object, ...], float] = {}
        """As last told: with all of a variant up, nobody says what a start would take."""

    def decide(self, state: ScalerInput) -> ScalingPlan:
        return joined([self._pool(model, pool, state) for model, pool in state.pools.items()])

    def _pool(self, model: str, pool: Pool, state: ScalerInput) -> ScalingPlan:
        scaler = self._scaler
        demand = self._demand.setdefault(model, scaler.demand())
        demand.look(pool, state.now_s)
        known = capacity(pool, demand)
        able = known or (lambda each: float(each.slots))
        taken = float(max(pool.in_flight, min(demand.came, 1)))
        need = (taken if known is None else needed_per_s(pool, demand, scaler.drain_s)) / scaler.target
        kinds = variants_of(pool, able, state.hosts, state.hosts_up)
        if not kinds:
            return ScalingPlan()
        qualities = {each.name: each.quality for each in pool.replicas}
        names = [(kind.members or kind.places)[0] for kind in kinds]
        errors = [1 - quality if (quality := qualities[name]) is not None else 0.0 for name in names]
        keys = [(model, *kind.key) for kind in kinds]
        self._starts_s |= {key: kind.start_s for key, kind in zip(keys, kinds, strict=True) if kind.places}
        costs = SlotCosts.of(
            kinds,
            slot_s=scaler.interval_s,
            error_price=scaler.error_price,
            errors=errors,
            starts_s=[self._starts_s.get(key, 0.0) for key in keys],
        )
        before = self._before(model, keys, [len(kind.members) for kind in kinds])
        mix = regularized(costs, before, need, eagerness=scaler.eagerness, near=scaler.near)
        self._mixes[model] = dict(zip(keys, mix.tolist(), strict=True))
        for key in keys:
            if key not in self._draws:
                self._draws[key] = float(self._chance.random())
        counts = rounded(costs, mix, need, np.array([self._draws[key] for key in keys]))
        return mix_plan(
            pool, kinds, self._least(counts, [kind.most for kind in kinds]), need,
            policy=scaler.name, model=model, now_s=state.now_s, constraint=None,
        )  # fmt: skip

    def _before(self, model: str, keys: list[tuple[object, ...]], up: list[int]) -> Array:
        """The mix of the slot before; what is up of a variant that is new."""
        kept = self._mixes.get(model, {})
        return np.array([kept.get(key, float(count)) for key, count in zip(keys, up, strict=True)])

    def _least(self, counts: tuple[int, ...], most: list[int]) -> tuple[int, ...]:
        """The mix, with the first variants added up to the fewest replicas."""
        added = list(counts)
        for i, limit in enumerate(most):
            added[i] += max(0, min(limit - added[i], self._scaler.least - sum(added)))
        return tuple(added)
