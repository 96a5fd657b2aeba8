"""Every site in its turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.resource.offloading.base import OffloadTask, ScoredOffload, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRobin(ScoredOffload):
    """Gives every site as many requests as every other, whatever they are. The usual baseline. Lossless.

    Source: Nagle, "On packet switches with infinite storage" (RFC 970, 1985), over requests.
    """

    name: ClassVar[str] = "round-robin"

    def score(self, task: OffloadTask, site: Site) -> float:  # noqa: ARG002
        return site.served
