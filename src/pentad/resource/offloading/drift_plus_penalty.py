"""Cheap sites while their queues are short: money against delay, with a bound on both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.offloading.base import OffloadTask, ScoredOffload, Site, estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPlusPenalty(ScoredOffload):
    """Takes the site with the least money times `v` plus its queue times the work that the request adds.

    A dear site is used only once the cheap ones' queues make up for what it costs. Money comes as near to the
    least that keeps the queues bounded as 1 / v, while queues grow in proportion to v; no arrival rates need
    to be known. Queues stay bounded as long as all sites together keep up with the load. Lossless.

    Source: CE-IoT's drift-plus-penalty choice per slot, on Lyapunov optimization (Neely, 2010, chapter 4).
    Our difference: a slot is one request, so the greedy pick of its auction is the least of the scores.
    """

    v: float = 1.0
    """What money weighs, above 0: seconds of queue times seconds of work that a unit of money is worth."""

    name: ClassVar[str] = "drift-plus-penalty"

    def __post_init__(self) -> None:
        in_range("v", self.v, above=0)

    def score(self, task: OffloadTask, site: Site) -> float:
        found = estimate(task, site)
        work_s = (found.prompt_s + found.answer_s) / site.slots
        return self.v * found.cost + (found.wait_s + found.send_s) * work_s
