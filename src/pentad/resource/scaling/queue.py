"""As many replicas as keep the slots at a target utilisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import Pool, ScalerInput, Scaling, ScalingPlan, joined, to_size


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueScaler:
    """Starts replicas at once when requests exceed the target, stops them after a while of calm.

    A pool's demand is what runs and waits. So many replicas are wanted that their slots hold it at the
    target utilisation; those that are still starting count, so that a cold start is not answered with
    more of them. Fewer are wanted only after the demand has asked for fewer for `calm_s` without a
    break, and then as many as the highest demand of that time needs.

    Source: target tracking with a stabilisation window, as Kubernetes' HorizontalPodAutoscaler does it,
    on requests in flight as Knative counts them.
    """

    target: float = 0.7
    """Share of a replica's slots that requests should take, above 0 to 1."""
    least: int = 1
    """Fewest replicas of a model; 0 lets it go to none, and its next request waits for a cold start."""
    most: int | None = None
    """Most replicas of a model; None: as many as there are places."""
    calm_s: float = 60.0
    """How long the demand must have been lower before replicas are stopped."""
    interval_s: float = 1.0
    """Seconds between decisions."""

    name: ClassVar[str] = "queue"
    colocates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        in_range("target", self.target, above=0, most=1)
        in_range("least", self.least, least=0)
        in_range("most", self.most, least=max(1, self.least))
        in_range("calm_s", self.calm_s, least=0)
        in_range("interval_s", self.interval_s, above=0)

    @property
    def least_replicas(self) -> int:
        return self.least

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Tracking(self)

    def cost(self, members: int) -> float:
        return 2e-6 * (members + 1)


class _Tracking:
    """Remembers, per pool, what was wanted during the last `calm_s`."""

    def __init__(self, scaler: QueueScaler) -> None:
        self._scaler = scaler
        self._wanted: dict[str, list[tuple[float, int]]] = {}
        self._arrived: dict[str, int] = {}
        """Requests that the latest look knew of."""

    def decide(self, state: ScalerInput) -> ScalingPlan:
        return joined([self._pool(model, pool, state.now_s) for model, pool in state.pools.items()])

    def _pool(self, model: str, pool: Pool, now_s: float) -> ScalingPlan:
        scaler = self._scaler
        slots = max([*(m.slots for m in pool.members), *(p.slots for p in pool.places)], default=1)
        demanded = math.ceil(pool.in_flight / (slots * scaler.target))
        if pool.arrived > self._arrived.get(model, 0):  # also one that came and went between two looks
            demanded = max(demanded, 1)
        self._arrived[model] = pool.arrived
        wanted = max(demanded, scaler.least)
        constraint = "least" if wanted > demanded else None
        if scaler.most is not None and wanted > scaler.most:
            wanted, constraint = scaler.most, "most"
        history = self._wanted.setdefault(model, [])
        history.append((now_s, wanted))
        # One entry from before the window stays, so that the window is known to be covered.
        while len(history) > 1 and history[1][0] <= now_s - scaler.calm_s:
            history.pop(0)
        up = sum(member.state != "draining" for member in pool.members)
        if wanted < up:
            covered = history[0][0] <= now_s - scaler.calm_s
            wanted = min(up, max(count for _, count in history)) if covered else up
        return to_size(pool, wanted, policy=scaler.name, model=model, now_s=now_s, constraint=constraint)
