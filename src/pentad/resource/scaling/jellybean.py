"""Models of a workflow's operators, chosen together for one accuracy, and the tiers that run them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import Pool, ScalerInput, Scaling, ScalingPlan, joined
from pentad.resource.scaling.demand import Calm, Demand, LooksAhead
from pentad.resource.scaling.mix_plan import mix_plan
from pentad.resource.scaling.operator_plan import OperatorModel, OperatorPlan, Worker, plan_operators
from pentad.resource.scaling.speed import capacity, needed_per_s
from pentad.resource.scaling.variants import Variant, variants_of


@dataclass(frozen=True, slots=True, kw_only=True)
class JellyBean(LooksAhead):
    """Runs each model of a chain as the variant with which the whole is good enough at the least price.

    All models of the fleet are the operators of one workflow, in their order; a pool's replicas of equal
    quality are one choice of model, the machines that they stand on are the tiers. Where the quality cannot
    be reached or the load not be held, each operator gets the best that it has, and the decision says so.
    Exactness: lossy; the metric is the product of the stated qualities, one that nobody states being 1.
    Cost: some hundred microseconds for three operators.

    Source: JellyBean (Wu et al., VLDB 2022, section 5). Our difference: it goes on while the load changes,
    with the forecast of the other scalers; see `operator_plan`.
    """

    quality: float = 0.0
    """That the workflow as a whole must have, 0 to 1."""
    beam: int = 8
    """Beginnings that are kept while models are chosen."""
    transfer_price: float = 0.0
    """Money for a request that passes from one machine to another."""
    target: float = 0.8
    """Share of what the replicas can answer that the load should be, above 0 to 1."""
    drain_s: float = 10.0
    """In how long requests that wait should be answered."""
    calm_s: float = 30.0
    """How long less must have been needed before replicas are stopped."""

    name: ClassVar[str] = "jellybean"

    def __post_init__(self) -> None:
        LooksAhead.__post_init__(self)
        in_range("quality", self.quality, least=0, most=1)
        in_range("beam", self.beam, least=1)
        in_range("transfer_price", self.transfer_price, least=0)
        in_range("target", self.target, above=0, most=1)
        in_range("drain_s", self.drain_s, above=0)
        in_range("calm_s", self.calm_s, least=0)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Running(self)

    def cost(self, members: int) -> float:
        return 4e-4 + 4e-6 * members


@dataclass(slots=True)
class _Seen:
    """Of one operator."""

    demand: Demand
    calm: Calm[float]
    kinds: tuple[Variant, ...] = ()
    qualities: list[float] = field(default_factory=list)
    tiers: list[str] = field(default_factory=list)
    need: float = 0.0


class _Running:
    """What it has seen of each operator."""

    def __init__(self, scaler: JellyBean) -> None:
        self._scaler = scaler
        self._seen: dict[str, _Seen] = {}

    def decide(self, state: ScalerInput) -> ScalingPlan:
        for model, pool in state.pools.items():
            self._look(model, pool, state)
        seen = {model: self._seen[model] for model in state.pools}
        plan = plan_operators(
            [_models(one) for one in seen.values()],
            [one.need for one in seen.values()],
            quality=self._scaler.quality,
            beam=self._scaler.beam,
            transfer_price=self._scaler.transfer_price,
        )
        return joined([self._change(model, pool, plan, state) for model, pool in state.pools.items()])

    def _look(self, model: str, pool: Pool, state: ScalerInput) -> None:
        scaler = self._scaler
        if model not in self._seen:
            self._seen[model] = _Seen(demand=scaler.demand(), calm=Calm(scaler.calm_s))
        seen = self._seen[model]
        seen.demand.look(pool, state.now_s)
        known = capacity(pool, seen.demand)
        able = known or (lambda each: float(each.slots))
        taken = float(max(pool.in_flight, min(seen.demand.came, 1)))
        need = taken if known is None else needed_per_s(pool, seen.demand, scaler.drain_s)
        seen.need = seen.calm.highest(state.now_s, need / scaler.target)
        seen.kinds = variants_of(pool, able, state.hosts, state.hosts_up)
        stated = {each.name: each for each in pool.replicas}
        first = [stated[(kind.members or kind.places)[0]] for kind in seen.kinds]
        seen.qualities = [1.0 if one.quality is None else one.quality for one in first]
        seen.tiers = [one.host for one in first]

    def _change(self, model: str, pool: Pool, plan: OperatorPlan | None, state: ScalerInput) -> ScalingPlan:
        seen, place = self._seen[model], list(state.pools).index(model)
        counts: Mapping[str, int] = {}
        if plan is not None:
            counts = plan.choices[place].counts
        elif seen.kinds:
            best = max(range(len(seen.kinds)), key=lambda i: (seen.qualities[i], seen.kinds[i].capacity))
            kind = seen.kinds[best]
            counts = {str(best): min(kind.most, math.ceil(seen.need / max(kind.capacity, 1e-12)))}
        numbers = [counts.get(str(i), 0) for i in range(len(seen.kinds))]
        for i, kind in enumerate(seen.kinds):
            numbers[i] += max(0, min(kind.most - numbers[i], self._scaler.least - sum(numbers)))
        return mix_plan(
            pool, seen.kinds, numbers, seen.need,
            policy=self._scaler.name, model=model, now_s=state.now_s,
            constraint="quality" if plan is None else None,
        )  # fmt: skip


def _models(seen: _Seen) -> list[OperatorModel]:
    """What an operator may run: a model for each quality that there is."""
    return [
        OperatorModel(
            name=f"{quality:g}",
            quality=quality,
            workers=tuple(
                Worker(
                    name=str(i), tier=seen.tiers[i], capacity=kind.capacity,
                    price_per_s=kind.price_per_s, most=kind.most,
                )
                for i, kind in enumerate(seen.kinds)
                if seen.qualities[i] == quality
            ),
        )
        for quality in sorted(set(seen.qualities))
    ]  # fmt: skip
