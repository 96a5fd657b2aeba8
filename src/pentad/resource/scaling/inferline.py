"""A pipeline's stages sized for its tail, and scaled as soon as the load leaves its envelope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.scaling.base import Pool, ScalerInput, Scaling, ScalingPlan, joined, to_size
from pentad.resource.scaling.demand import Calm, slots_of
from pentad.resource.scaling.envelope import RecentCounts, most_within, windows
from pentad.resource.scaling.pipeline import StageOption, StageSize, plan_pipeline
from pentad.resource.scaling.speed import mean_lengths

BACK_S = 30.0
"""How far back the rate is looked at before replicas are stopped."""
RATE_S = 5.0
"""Over what time that rate is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferline:
    """Sizes the models of a pipeline together, then scales each by how far the load exceeds what was planned
    for.

    All models of the fleet are the stages of one pipeline, in their order. After `sample_s` of load the
    planner finds the cheapest batch and number of replicas of each stage for which the sample is in time.
    From then on the tuner looks at windows of all lengths: where more came than in the sample, each stage
    gets the replicas for that window's rate at once; after `calm_s` without a change it goes back to what
    the rate of the last half minute needs. Until there is a plan, replicas are started for what waits.

    Source: InferLine (Crankshaw et al., SoCC'20, section 4: planner; 5: tuner). Our difference: the sample
    is the beginning of the load itself, and of each stage only the cheapest hardware that it has places on
    is used.
    """

    deadline_s: float = 10.0
    """Of a request through all stages, where the load brings none."""
    share: float = 0.99
    """Share of the requests that should be in time, above 0 and below 1."""
    sample_s: float = 60.0
    """How long the load is watched before stages are sized."""
    calm_s: float = 15.0
    """How long nothing must have changed before replicas are stopped."""
    interval_s: float = 0.5
    """Seconds between decisions."""

    name: ClassVar[str] = "inferline"
    least_replicas: ClassVar[int] = 0
    colocates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        in_range("deadline_s", self.deadline_s, above=0)
        in_range("share", self.share, above=0, most=0.9999)
        in_range("sample_s", self.sample_s, above=0)
        in_range("calm_s", self.calm_s, least=0)
        in_range("interval_s", self.interval_s, above=0)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Tuning(self)

    def cost(self, members: int) -> float:
        return 1e-5 + 1e-6 * members


class _Tuning:
    """The plan, once there is one, and what has come since."""

    def __init__(self, scaler: Inferline) -> None:
        self._scaler = scaler
        self._sample: list[float] = []
        """Instants at which requests entered the pipeline, as exactly as looks tell them."""
        self._entered = 0
        self._since_s: float | None = None
        self._calm: dict[str, Calm[int]] = {}
        self._tuners: dict[str, _Stage] = {}

    def decide(self, state: ScalerInput) -> ScalingPlan:
        now_s = state.now_s
        entry = next(iter(state.pools.values()), Pool())
        if entry.arrived and self._since_s is None:
            self._since_s = now_s
        if self._since_s is not None and not self._tuners:
            self._watch(entry, now_s)
            if now_s - self._since_s >= self._scaler.sample_s and all(p.recent for p in state.pools.values()):
                self._plan(state)
        return joined([self._pool(model, pool, now_s) for model, pool in state.pools.items()])

    def _watch(self, entry: Pool, now_s: float) -> None:
        """Spreads what came since the latest look over the time between."""
        came, self._entered = entry.arrived - self._entered, entry.arrived
        step_s = self._scaler.interval_s
        self._sample += [now_s - step_s + step_s * (i + 0.5) / came for i in range(came)]

    def _plan(self, state: ScalerInput) -> None:
        """Sizes the stages, if it is known how fast they are."""
        options = [stage_options(pool) for pool in state.pools.values()]
        if not all(options) or len(self._sample) < 2:
            return
        deadline_s = next(iter(state.pools.values())).deadline_s or self._scaler.deadline_s
        try:
            sizes = plan_pipeline(options, self._sample, deadline_s, share=self._scaler.share)
        except Infeasible:
            self._since_s = state.now_s  # as requests are now it cannot be in time: look again later
            return
        shortest_s = sum(size.option.batch_s(size.batch) for size in sizes)
        lengths = windows(max(shortest_s, self._scaler.interval_s))
        for (model, pool), size in zip(state.pools.items(), sizes, strict=True):
            rate = len(self._sample) / (self._sample[-1] - self._sample[0])
            self._tuners[model] = _Stage(
                size, rate, lengths, most_within(self._sample, lengths), self._scaler.calm_s, state.now_s
            )
            self._tuners[model].counts.look(state.now_s, pool.arrived)

    def _pool(self, model: str, pool: Pool, now_s: float) -> ScalingPlan:
        if model in self._tuners:
            wanted, constraint = self._tuners[model].wanted(pool, now_s)
        else:
            calm = self._calm.setdefault(model, Calm(self._scaler.sample_s))
            wanted, constraint = calm.highest(now_s, math.ceil(pool.in_flight / slots_of(pool))), "sample"
        return to_size(pool, wanted, policy=Inferline.name, model=model, now_s=now_s, constraint=constraint)


class _Stage:
    """The tuner of one stage.

    Args:
        size: what was planned.
        rate: of the sample, per second.
        lengths: of the windows.
        most: arrivals of the sample in them.
        calm_s: how long nothing must have changed before replicas are stopped.
        now_s: instant of the plan.
    """

    def __init__(
        self,
        size: StageSize,
        rate: float,
        lengths: tuple[float, ...],
        most: tuple[int, ...],
        calm_s: float,
        now_s: float,
    ) -> None:
        self._size = size
        self._busy = rate / (size.per_s * size.replicas)
        """Share of the stage's capacity that the sample took: the room that its bursts need."""
        self._lengths = lengths
        self._most = most
        self._calm_s = calm_s
        self._replicas = size.replicas
        self._changed_s = now_s
        self.counts = RecentCounts((*lengths, max(lengths[-1], BACK_S + RATE_S)))

    def wanted(self, pool: Pool, now_s: float) -> tuple[int, str]:
        """Replicas of the stage now, and what bound them."""
        self.counts.look(now_s, pool.arrived)
        came = self.counts.within()
        over = [
            count / length
            for count, length, most in zip(came, self._lengths, self._most, strict=False)
            if count > most
        ]
        needed = self._needed(max(over)) if over else 0
        if needed >= self._replicas:
            self._changed_s = now_s
            if needed > self._replicas:
                self._replicas = needed
                return needed, "envelope"
        elif now_s - self._changed_s >= self._calm_s:
            lower = self._needed(self.counts.highest_rate(RATE_S, BACK_S))
            if lower < self._replicas:
                self._replicas, self._changed_s = max(1, lower), now_s
        return self._replicas, "plan"

    def _needed(self, rate: float) -> int:
        """Replicas for a rate, with as much room as was planned."""
        return math.ceil(rate / (self._size.per_s * min(1.0, self._busy)) - 1e-9)


def stage_options(pool: Pool) -> list[StageOption]:
    """The kinds of replicas of a pool, the cheapest of those that it has most of; empty: nobody knows
    speeds."""
    lengths = mean_lengths(pool)
    known = [each for each in pool.replicas if each.speed is not None]
    if lengths is None or not known:
        return []
    first = min(known, key=lambda each: each.price_per_s)
    assert first.speed is not None
    return [
        StageOption(
            name=first.name,
            price_per_s=first.price_per_s,
            fixed_s=first.speed.fixed_s(first.slots, lengths[1]),
            item_s=first.speed.item_s(first.slots, *lengths),
            most=first.slots,
        )
    ]
