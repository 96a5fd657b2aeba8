"""sweep: one load at several rates, and the knee: the most requests per second that are served well."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.errors import InvalidRequest
from pentad.ranges import in_range
from pentad.resource.simulator.report import SimulationReport
from pentad.resource.simulator.trace import TraceItem, rescaled

REFINEMENTS = 5
"""Halvings, by ratio, of the interval in which the knee lies; each is one more replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Reports by rate, ascending, and where attainment falls below `share`."""

    points: tuple[tuple[float, SimulationReport], ...]
    share: float
    knee_per_s: float | None
    """The highest rate found at which `share` of the requests met the objective; None: there is none."""
    bounded: bool
    """Whether a rate was tried that is too high; else the knee lies above the highest one."""

    def to_dict(self) -> dict[str, Any]:
        """The sweep as plain data for JSON."""
        return {
            "rates": [{"rate_per_s": rate} | report.to_dict() for rate, report in self.points],
            "share": self.share,
            "knee_per_s": self.knee_per_s,
            "bounded": self.bounded,
        }


def sweep(
    items: Sequence[TraceItem],
    rates: Sequence[float],
    replay: Callable[[Sequence[TraceItem]], SimulationReport],
    *,
    share: float = 0.9,
) -> Sweep:
    """Replays the items at each mean rate in requests per second, then narrows the knee down.

    The order and the relative gaps of arrivals stay; what changes is how fast they come.

    Args:
        items: a load with at least two arrivals.
        rates: requests per second to report.
        replay: simulates one load under the objective.
        share: of requests that must meet the objective for a rate to count as served.

    Raises:
        InvalidRequest: a rate or share out of range, or a load without a duration.
    """
    in_range("share", share, above=0, most=1)
    for rate in rates:
        in_range("rates", rate, above=0)
    span_s = max(item.arrival_s for item in items) - min(item.arrival_s for item in items)
    if not span_s > 0:
        raise InvalidRequest(
            f"the load's {len(items)} requests all arrive at once, so it has no rate to change",
            hint="raise --limit, or give another trace",
        )
    own_per_s = (len(items) - 1) / span_s

    def at(rate: float) -> SimulationReport:
        return replay(rescaled(items, rate / own_per_s))

    points = tuple((rate, at(rate)) for rate in sorted(set(rates)))
    served = [rate for rate, report in points if report.attainment >= share]
    missed = [rate for rate, report in points if report.attainment < share]
    high = missed[0] if missed else None
    low = max((rate for rate in served if high is None or rate < high), default=None)
    if low is not None and high is not None:
        for _ in range(REFINEMENTS):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if at(middle).attainment >= share else (low, middle)
    return Sweep(points=points, share=share, knee_per_s=low, bounded=high is not None)
