"""Requests in the proportions of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.resource.offloading.base import OffloadTask, ScoredOffload, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow(ScoredOffload):
    """Gives each site the share of requests that the plan's flow gives it, interleaved.

    The next request goes to the site that is furthest behind its share. Blind to queues and links.
    Lossless.

    Source: the interleaved weighted round-robin of Helix (Mei et al., ASPLOS'25, section 5.1), over
    whole replicas in place of single edges.
    """

    name: ClassVar[str] = "flow"

    def score(self, task: OffloadTask, site: Site) -> float:  # noqa: ARG002
        return (site.served + 0.5) / site.weight
