"""The mix of instance types that answers most for a budget, found without trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.scaling.base import (
    Pool,
    Replica,
    ScalerInput,
    Scaling,
    ScalingPlan,
    joined,
    to_size,
    told,
)
from pentad.resource.scaling.demand import Calm, slots_of
from pentad.resource.scaling.instance_mix import InstanceType, best_mix
from pentad.resource.scaling.speed import Speed

SIZES = 64
"""Quantiles of the requests' sizes that stand for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kairos:
    """Takes the mix of cheap and dear replicas that answers most within a budget, for the sizes that
    requests have.

    Each mix has an upper bound of its throughput, from step times and the sizes of the latest requests; the
    mix with the best bounds around it is kept up until sizes have changed. Until `sample` requests have
    ended, replicas are started for what waits.

    Source: Kairos (Li et al., HPDC'23, sections 4.3 and 4.4). Our difference: instances with several slots
    count as so many as their step times are worth; who gets which request is the offload policy's choice.
    """

    budget_per_hour: float | None = None
    """Money for each model; null: what all its places cost."""
    deadline_s: float = 10.0
    """Of requests that bring none."""
    sample: int = 50
    """Requests that must have ended before a mix is chosen."""
    replan_s: float = 300.0
    """How often the sizes are looked at again."""
    calm_s: float = 30.0
    """Before there is a mix: how long less must have been needed before replicas are stopped."""
    interval_s: float = 1.0
    """Seconds between decisions."""

    name: ClassVar[str] = "kairos"
    least_replicas: ClassVar[int] = 0
    colocates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        in_range("budget_per_hour", self.budget_per_hour, above=0)
        in_range("deadline_s", self.deadline_s, above=0)
        in_range("sample", self.sample, least=1)
        in_range("replan_s", self.replan_s, above=0)
        in_range("calm_s", self.calm_s, least=0)
        in_range("interval_s", self.interval_s, above=0)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Choosing(self)

    def cost(self, members: int) -> float:
        return 2e-5 + 1e-6 * members


class _Choosing:
    """The mix of each pool, once there is one."""

    def __init__(self, scaler: Kairos) -> None:
        self._scaler = scaler
        self._mix: dict[str, dict[str, int]] = {}
        """By model, how many of each type."""
        self._next_s: dict[str, float] = {}
        self._calm: dict[str, Calm[int]] = {}

    def decide(self, state: ScalerInput) -> ScalingPlan:
        return joined([self._pool(model, pool, state.now_s) for model, pool in state.pools.items()])

    def _pool(self, model: str, pool: Pool, now_s: float) -> ScalingPlan:
        if len(pool.recent) >= self._scaler.sample and now_s >= self._next_s.get(model, 0.0):
            self._next_s[model] = now_s + self._scaler.replan_s
            found = self._chosen(pool)
            if found is not None:
                self._mix[model] = found
        if model not in self._mix:
            calm = self._calm.setdefault(model, Calm(self._scaler.calm_s))
            wanted = calm.highest(now_s, -(-pool.in_flight // slots_of(pool)))
            return to_size(pool, wanted, policy=Kairos.name, model=model, now_s=now_s, constraint="sample")
        return self._towards(model, pool, now_s)

    def _chosen(self, pool: Pool) -> dict[str, int] | None:
        """The mix for the sizes of late; None where no mix keeps the deadline, or nobody knows speeds."""
        scaler = self._scaler
        kinds = instance_types(pool)
        if kinds is None:
            return None
        hour = scaler.budget_per_hour
        budget = sum(kind.price_per_s * kind.most for kind in kinds) if hour is None else hour / 3600
        sizes = np.quantile([prompt for prompt, _ in pool.recent], np.linspace(0, 1, SIZES)).tolist()
        deadline_s = scaler.deadline_s if pool.deadline_s is None else pool.deadline_s
        try:
            mix = best_mix(kinds, sizes, deadline_s, budget)
        except Infeasible:
            return None
        return {kind.name: count for kind, count in zip(kinds, mix, strict=True)}

    def _towards(self, model: str, pool: Pool, now_s: float) -> ScalingPlan:
        """What leads to the mix."""
        mix = self._mix[model]
        start: list[str] = []
        stop: list[str] = []
        for kind, count in mix.items():
            up = [m.name for m in pool.members if type_of(m) == kind and m.state != "draining"]
            draining = [m.name for m in pool.members if type_of(m) == kind and m.state == "draining"]
            spare = [*draining, *(place.name for place in pool.places if type_of(place) == kind)]
            start += spare[: max(0, count - len(up))]
            stop += up[count:]
        return told(
            pool,
            tuple(start),
            tuple(stop),
            policy=Kairos.name,
            model=model,
            now_s=now_s,
            wanted=sum(mix.values()),
            constraint="budget",
            scores=tuple((kind, float(count)) for kind, count in mix.items()),
        )


def type_of(replica: Replica) -> str:
    """What replicas that are alike have in common, in words."""
    pace = "" if replica.speed is None else f", {replica.speed.prompt_token_s:.3g} s a prompt token"
    return f"{replica.slots} slots at {replica.price_per_s * 3600:.4g} an hour{pace}"


def instance_types(pool: Pool) -> tuple[InstanceType, ...] | None:
    """The types of a pool's members and places; None where the speed of one is not known."""
    prompt, answer = (sum(each) / len(pool.recent) for each in zip(*pool.recent, strict=True))
    found: dict[str, list[tuple[Replica, Speed]]] = {}
    for each in pool.replicas:
        if each.speed is None:
            return None
        found.setdefault(type_of(each), []).append((each, each.speed))
    return tuple(
        InstanceType(
            name=name,
            price_per_s=alike[0][0].price_per_s,
            fixed_s=answer * alike[0][1].alone_s,
            unit_s=alike[0][1].prompt_token_s,
            most=len(alike),
            parallel=alike[0][1].per_s(alike[0][0].slots, prompt, answer)
            * (prompt * alike[0][1].prompt_token_s + answer * alike[0][1].alone_s),
        )
        for name, alike in found.items()
    )
