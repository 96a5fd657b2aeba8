"""The first layers in the vehicle, the rest at the road side: the cut with the least weighted cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.offloading.base import OffloadTask, ScoredOffload, Site, estimate
from pentad.resource.offloading.scenarios import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class VehicularSplit(ScoredOffload):
    """Takes the site, the share of it and the cut of the model with the least cost of time, energy and money.

    A cut sends activations in place of the input, which layers in front of it have made smaller; so it moves
    with the channel and with what waits at the road side. Cuts and shares are sites of their own
    (`variants.py`). Time is counted in deadlines, of 10 s where a request has none. Lossless.

    Source: Liu and Zhao, "Resource allocation in large language model integrated 6G vehicular networks", VTC
    2024. Ours looks at every cut and share there is in place of a relaxed program, and places requests one by
    one.
    """

    time: float = 1.0
    """Cost of a completion that takes as long as the deadline, 0 or more."""
    late: float = 1.0
    """In addition behind the deadline, 0 or more."""
    energy_per_j: float = 0.02
    """Of a joule of the vehicle, 0 or more."""
    money: float = 1.0
    """Of a unit of money, 0 or more."""

    name: ClassVar[str] = "vehicular-split"

    def __post_init__(self) -> None:
        for field in ("time", "late", "energy_per_j", "money"):
            in_range(field, getattr(self, field), least=0)

    def score(self, task: OffloadTask, site: Site) -> float:
        weights = Weights(
            time=self.time, late=self.late, energy_per_j=self.energy_per_j, money=self.money, dropped=1e9
        )
        return weights.of(task, estimate(task, site))

    def cost(self, sites: int) -> float:
        return 5e-6 * sites
