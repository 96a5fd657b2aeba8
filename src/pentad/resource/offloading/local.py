"""Nothing is offloaded that can be computed where it arises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.resource.offloading.base import OffloadTask, ScoredOffload, Site

_FAR = {"device": 0.0, "edge": 1e12, "remote": 2e12}
_PER_S = 1e6
"""What kind and latency weigh: no queue takes a request further away while a nearer site may serve it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Local(ScoredOffload):
    """Computes a request where it arises, else on the nearest machine of ours, remote ones last.

    Near is by latency; of equally near sites it takes the one with the least work per slot. Lossless.
    """

    name: ClassVar[str] = "local"

    def score(self, task: OffloadTask, site: Site) -> float:  # noqa: ARG002
        return _FAR[site.kind] + _PER_S * site.latency_s + (site.running + site.waiting) / site.slots
