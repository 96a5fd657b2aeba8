"""The same replicas whatever the load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import ScalerInput, Scaling, ScalingPlan, joined, to_size


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedReplicas:
    """Keeps a fixed number of replicas of each model up, or all that there is a place for.

    With `together`, replicas of different models are up on one device at once, with a part of its memory
    each, and take turns on it step by step.
    """

    replicas: int | None = None
    """Of each model; None means one in every place."""
    together: bool = False
    """Whether different models may share a device."""

    name: ClassVar[str] = "fixed"
    interval_s: ClassVar[float] = 60.0

    def __post_init__(self) -> None:
        in_range("replicas", self.replicas, least=0)

    @property
    def colocates(self) -> bool:
        return self.together

    @property
    def least_replicas(self) -> int:
        return self.replicas or 0

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return self

    def cost(self, members: int) -> float:
        return 1e-6 * (members + 1)

    def decide(self, state: ScalerInput) -> ScalingPlan:
        """What brings each pool back to its number; nothing once it is there."""
        plans = []
        for model, pool in state.pools.items():
            most = len(pool.members) + len(pool.places)
            wanted = most if self.replicas is None else self.replicas
            plans.append(
                to_size(pool, wanted, policy=self.name, model=model, now_s=state.now_s, constraint=None)
            )
        return joined(plans)
