"""Replicates, upgrades and downgrades variants of a model, and adds machines when those that run are full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import Pool, ScalerInput, Scaling, ScalingPlan, joined
from pentad.resource.scaling.demand import Calm, Demand, LooksAhead
from pentad.resource.scaling.mix_plan import mix_plan
from pentad.resource.scaling.speed import capacity, needed_per_s
from pentad.resource.scaling.variants import Variant, cheapest_mix, variants_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Infaas(LooksAhead):
    """Holds the load with the cheapest mix of the variants that a model can run as.

    More of the variant that runs (replicating), another one in its place (upgrading), or a smaller one once
    the load has been lower for a while (downgrading): whichever costs least, with the time that new replicas
    load weighted in. What is replaced is stopped once its successors are ready. Places on machines that do
    not run yet are taken into account when those that run are full or have no place that suffices.

    Source: INFaaS (Romero et al., ATC'21, sections 4 and 5: model autoscaler and VM autoscaler). Our
    difference: it looks at the forecast load as well as at the present one, and tries pairs of variants
    where INFaaS compares replicating with upgrading to one.
    """

    target: float = 0.8
    """Share of what the replicas can answer that the load should be, above 0 to 1."""
    load_weight: float = 0.01
    """What a second of loading adds to a replica's price, as a share of it."""
    host_threshold: float = 0.8
    """Share of the slots on running machines that must be taken before a machine is added, 0 to 1."""
    drain_s: float = 10.0
    """In how long requests that wait should be answered."""
    calm_s: float = 30.0
    """How long less must have been needed before replicas are stopped or downgraded."""

    name: ClassVar[str] = "infaas"

    def __post_init__(self) -> None:
        LooksAhead.__post_init__(self)
        in_range("target", self.target, above=0, most=1)
        in_range("load_weight", self.load_weight, least=0)
        in_range("host_threshold", self.host_threshold, least=0, most=1)
        in_range("drain_s", self.drain_s, above=0)
        in_range("calm_s", self.calm_s, least=0)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Mixing(self)

    def cost(self, members: int) -> float:
        return 2e-4 + 3e-6 * members


class _Mixing:
    """What it has seen of each pool."""

    def __init__(self, scaler: Infaas) -> None:
        self._scaler = scaler
        self._demand: dict[str, Demand] = {}
        self._calm: dict[str, Calm[float]] = {}

    def decide(self, state: ScalerInput) -> ScalingPlan:
        return joined([self._pool(model, pool, state) for model, pool in state.pools.items()])

    def _pool(self, model: str, pool: Pool, state: ScalerInput) -> ScalingPlan:
        scaler = self._scaler
        if model not in self._demand:
            self._demand[model] = scaler.demand()
        demand = self._demand[model]
        demand.look(pool, state.now_s)
        known = capacity(pool, demand)
        able = known or (lambda each: float(each.slots))
        if model not in self._calm or known is None:
            # Needs are counted in slots as long as nobody knows better; what is up counts as needed at first.
            self._calm[model] = Calm(scaler.calm_s)
            up = sum(able(member) for member in pool.members if member.state != "draining")
            self._calm[model].highest(state.now_s, up if known is not None else 0.0)
        taken = float(max(pool.in_flight, min(demand.came, 1)))
        need = taken if known is None else needed_per_s(pool, demand, scaler.drain_s)
        held = self._calm[model].highest(state.now_s, need / scaler.target)
        kinds = variants_of(pool, able, state.hosts, state.hosts_up)
        kinds, constraint = self._reachable(kinds, held, state)
        counts = self._least(kinds, cheapest_mix(kinds, held, scaler.load_weight))
        return mix_plan(
            pool, kinds, counts, held,
            policy=scaler.name, model=model, now_s=state.now_s, constraint=constraint,
        )  # fmt: skip

    def _reachable(
        self, kinds: tuple[Variant, ...], need: float, state: ScalerInput
    ) -> tuple[tuple[Variant, ...], str | None]:
        """The variants that may be used, without those of machines that are not to be added."""
        running = tuple(kind for kind in kinds if not kind.new_host)
        if len(running) == len(kinds):
            return kinds, None
        members = [member for each in state.pools.values() for member in each.members if member.host]
        slots = sum(member.slots for member in members)
        taken = sum(min(member.slots, member.running + member.waiting) for member in members)
        full = not slots or taken / slots > self._scaler.host_threshold
        suffices = sum(kind.most * kind.capacity for kind in running) >= need
        return (kinds, "host") if full or not suffices else (running, None)

    def _least(self, kinds: tuple[Variant, ...], counts: tuple[int, ...]) -> tuple[int, ...]:
        """The mix, with the cheapest variants added up to the fewest replicas."""
        added = list(counts)
        for i, kind in sorted(enumerate(kinds), key=lambda each: each[1].price_per_s):
            while sum(added) < self._scaler.least and added[i] < kind.most:
                added[i] += 1
        return tuple(added)
