"""The site where the request would be complete first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.resource.offloading.base import OffloadTask, ScoredOffload, Site, estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Fastest(ScoredOffload):
    """Takes the site with the shortest estimated completion: sending, waiting, prompt and answer.

    The estimate holds the present load constant, so a burst that arrives at once is spread by the
    queue that its own first requests make. Lossless.

    Source: the greedy minimum-completion-time rule of list scheduling (Maheswaran et al., 1999).
    """

    name: ClassVar[str] = "fastest"

    def score(self, task: OffloadTask, site: Site) -> float:
        return estimate(task, site).completion_s
