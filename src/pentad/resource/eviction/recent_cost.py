"""Least recent use, weighed by what loading again would cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.eviction.base import Resident


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentCost:
    """Keeps the models whose memory saves the most seconds of loading.

    A model idle for t seconds is expected to be asked for after about t more, so keeping one of its bytes
    saves load time / (bytes x t) seconds per second. A model that loads quickly for its size leaves before
    one that was used a little earlier and loads slowly. Exactness: lossless, answers do not depend on it.

    Source: GreedyDual-Size (Cao and Irani, USITS'97) weighs cost by size; hyperbolic caching (Blankstein
    et al., ATC'17) divides by a time that passes for all. Our difference: that time is the one since the
    latest use, not since the entry, so that no counts must be aged.
    """

    floor_s: float = 1.0
    """Idle seconds that count at least, so that requests in quick turns do not decide."""

    name: ClassVar[str] = "recent-cost"

    def __post_init__(self) -> None:
        in_range("floor_s", self.floor_s, above=0)

    def keep_value(self, model: Resident) -> float:
        return model.load_s / (max(1, model.size_bytes) * max(self.floor_s, model.idle_s))

    def cost(self, models: int) -> float:
        return 2e-6 * (models + 1)
