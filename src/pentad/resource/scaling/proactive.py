"""Models are loaded before the runs want them that are on their way to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import Member, Pool, ScalerInput, Scaling, ScalingPlan, joined, told
from pentad.resource.scaling.demand import slots_of
from pentad.resource.scaling.next_stages import Expected, NextStages

_NEVER_S = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Proactive:
    """Keeps the models up that runs want soonest: by requests, then by the stages that runs likely come to.

    Requests that wait come first. Then each model has the replicas that the calls need which are expected
    within `horizon_s`; where no place is free, the idle replica of the model that is wanted last gives way,
    if that is more than twice as far ahead and a cold start more. What is less likely than `least_chance` is
    not prepared for. As runs turn out to do something else than was declared, the predictions follow, and
    with them the replicas.

    Source: the survey's proactive, workflow-aware allocation (sections VII-A2, VII-B2); which replica gives
    way is Belady's rule on expectations.
    """

    follows: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Per model, how likely others are declared to follow it in a run, e.g. `{"planner": {"coder": 1}}`."""
    worth: float = 2.0
    """How many observations what is declared counts as."""
    learns: bool = True
    """Whether predictions follow what runs do; without it the declaration stands."""
    looks_ahead: bool = True
    """Without it models are loaded when requests wait for them, and the least recently used one gives way."""
    least_chance: float = 0.4
    """What is less likely is not prepared for; above 0 to 1."""
    horizon_s: float = 10.0
    """Calls that come later have no replicas of their own yet."""
    target: float = 0.7
    """Share of the replicas' slots that requests should take, above 0 to 1."""
    interval_s: float = 0.5
    """Seconds between decisions."""

    name: ClassVar[str] = "proactive"
    colocates: ClassVar[bool] = False
    least_replicas: ClassVar[int] = 0

    def __post_init__(self) -> None:
        in_range("worth", self.worth, least=0)
        in_range("least_chance", self.least_chance, above=0, most=1)
        in_range("horizon_s", self.horizon_s, above=0)
        in_range("target", self.target, above=0, most=1)
        in_range("interval_s", self.interval_s, above=0)
        for model, others in self.follows.items():
            for other, chance in others.items():
                in_range(f"follows.{model}.{other}", chance, least=0, most=1)
            in_range(f"chances of follows.{model} together", sum(others.values()), most=1 + 1e-9)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Preparing(self)

    def cost(self, members: int) -> float:
        return 5e-5 + 5e-6 * members


class _Preparing:
    """What it has learnt of one fleet's runs."""

    def __init__(self, scaler: Proactive) -> None:
        self._scaler = scaler
        self._stages = NextStages(scaler.follows, worth=scaler.worth, learns=scaler.learns)
        self._used_s: dict[str, float] = {}
        """When each model last had requests."""
        self._cold_s: dict[str, float] = {}
        """The longest cold start of each model that was seen."""

    def decide(self, state: ScalerInput) -> ScalingPlan:
        self._stages.note(state.calls)
        expected = self._stages.expected(state.now_s) if self._scaler.looks_ahead else {}
        for model, pool in state.pools.items():
            if pool.in_flight:
                self._used_s[model] = state.now_s
            for place in pool.places:
                self._cold_s[model] = max(place.cold_start_s, self._cold_s.get(model, 0.0))
        pools = state.pools.items()
        soonest = {model: self._soonest_s(model, pool, expected, state.now_s) for model, pool in pools}
        need = {model: self._needed(pool, ()) for model, pool in state.pools.items()}
        soon = {model: self._needed(pool, expected.get(model, ())) for model, pool in state.pools.items()}
        start: dict[str, list[str]] = {model: [] for model in state.pools}
        stop: dict[str, list[str]] = {model: [] for model in state.pools}
        for wanted, waits in ((need, True), (soon, False)):
            for model in sorted(state.pools, key=soonest.__getitem__):
                pool = state.pools[model]
                missing = wanted[model] - len(_up(pool)) - len(start[model])
                free = [one.name for one in pool.members if one.state == "draining"]
                cheapest = sorted(pool.places, key=lambda place: (place.price_per_s, place.cold_start_s))
                free += [one.name for one in cheapest]
                free = [name for name in free if name not in start[model]]
                start[model] += free[: max(0, missing)]
                for _ in range(missing - len(free)):
                    self._yield(model, state.pools, soonest, wanted=wanted, waits=waits, stop=stop)
        plans = [
            told(
                pool,
                tuple(start[model]),
                tuple(stop[model]),
                policy=self._scaler.name,
                model=model,
                now_s=state.now_s,
                wanted=max(need[model], soon[model]),
                constraint="another model" if stop[model] else "expected" if not need[model] else None,
                scores=(("wanted in s", soonest[model] if math.isfinite(soonest[model]) else None),),
            )
            for model, pool in state.pools.items()
        ]
        return joined(plans)

    def _needed(self, pool: Pool, expected: Sequence[Expected]) -> int:
        """Replicas for the requests that are there and those that come within the horizon."""
        scaler = self._scaler
        near = [one.chance for one in expected if one.in_s <= scaler.horizon_s]
        likely = sum(near) if sum(near) >= scaler.least_chance else 0.0
        return math.ceil((pool.in_flight + likely) / (slots_of(pool) * scaler.target) - 1e-9)

    def _soonest_s(
        self, model: str, pool: Pool, expected: Mapping[str, Sequence[Expected]], now_s: float
    ) -> float:
        """When a model is wanted: now, at its likely next call, or long after by how long it was not used."""
        if pool.in_flight:
            return 0.0
        likely = [each.in_s / each.chance for each in expected.get(model, ())]
        if likely:
            return min(likely)
        used_s = self._used_s.get(model)
        return _NEVER_S if used_s is None else 1e6 + now_s - used_s

    def _yield(
        self,
        model: str,
        pools: Mapping[str, Pool],
        soonest: Mapping[str, float],
        *,
        wanted: Mapping[str, int],
        waits: bool,
        stop: dict[str, list[str]],
    ) -> None:
        """Stops the idle replica whose model is wanted last, for one that is wanted sooner."""
        margin_s = 0.0 if waits else self._cold_s.get(model, 0.0)
        idle: list[tuple[float, str, Member]] = []
        for other, pool in pools.items():
            spare = len(_up(pool)) - len(stop[other]) - (wanted[other] if soonest[other] <= 0 else 0)
            names = [m for m in _up(pool) if m.state == "ready" and not m.running + m.waiting]
            left = [m for m in names if m.name not in stop[other]]
            later = soonest[other] > 2 * soonest[model] + margin_s
            if other != model and left and spare > 0 and (later or (waits and soonest[other] > 0)):
                idle.append((soonest[other], other, left[-1]))
        if idle:
            _, other, member = max(idle, key=lambda one: one[:2])
            stop[other].append(member.name)


def _up(pool: Pool) -> list[Member]:
    return [member for member in pool.members if member.state != "draining"]
