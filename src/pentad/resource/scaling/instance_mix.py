"""Mixes of instance types: what a mix can answer at most, and which of those within a budget to take.

Cheap types answer only short requests within the deadline; dear ones answer all.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One kind of instance."""

    name: str
    price_per_s: float
    fixed_s: float
    """Of a request, whatever its size."""
    unit_s: float
    """That each unit of its size adds: a prompt token, an item of a batch."""
    most: int
    """Instances that there can be."""
    parallel: float = 1.0
    """Requests that it computes at once without becoming slower."""

    def seconds(self, size: float) -> float:
        """What a request of that size takes."""
        return self.fixed_s + self.unit_s * size

    def longest(self, deadline_s: float) -> float:
        """The largest size that is answered in time; below 0: none."""
        if self.unit_s <= 0:
            return float("inf") if self.fixed_s <= deadline_s else -1.0
        return (deadline_s - self.fixed_s) / self.unit_s


def most_per_s(
    types: Sequence[InstanceType], counts: Sequence[int], sizes: Sequence[float], deadline_s: float
) -> float:
    """Requests per second that no dispatcher exceeds by much with so many instances of each type.

    Types whose longest request is short take their fill of the requests up to it, shortest reach first; what
    they leave goes to the types with a longer reach. No trial is run, and no queue is thought of: all are
    busy all the time. A mix without a type that answers the longest request answers nothing.

    Args:
        types: instance types.
        counts: of each.
        sizes: of a sample of requests.
        deadline_s: by which each must be answered.

    Source: Kairos (Li et al., HPDC'23, section 4.3, upper bound of throughput). Our difference: written for
    any number of types at once, as a rate that just fills all of them.
    """
    ordered = sorted(sizes)
    used = [
        (kind.longest(deadline_s), count, kind) for kind, count in zip(types, counts, strict=True) if count
    ]
    used.sort(key=lambda each: each[0])
    if not used or not ordered or used[-1][0] < ordered[-1]:
        return 0.0
    low, high = 0.0, sum(count * kind.parallel / kind.seconds(ordered[0]) for _, count, kind in used)
    for _ in range(50):
        rate = (low + high) / 2
        low, high = (rate, high) if _holds(used, ordered, rate) else (low, rate)
    return low


def _holds(used: list[tuple[float, int, InstanceType]], ordered: list[float], rate: float) -> bool:
    """Whether a rate of requests, alike to the sample, leaves no work over."""
    each = rate / len(ordered)
    left = [each] * len(ordered)
    """Requests per second of each size that nobody has taken."""
    for reach, count, kind in used:
        able = count * kind.parallel  # seconds of work in a second
        # The longest first: they are what a type with a longer reach would otherwise have to take.
        for i in range(bisect_right(ordered, reach) - 1, -1, -1):
            if able <= 0:
                break
            took = min(left[i], able / kind.seconds(ordered[i]))
            left[i] -= took
            able -= took * kind.seconds(ordered[i])
    return sum(left) <= 1e-9 * rate


def mixes(types: Sequence[InstanceType], budget_per_s: float) -> Iterator[tuple[int, ...]]:
    """All mixes within a budget to which no instance could be added."""
    ranges = [
        range(
            min(kind.most, int(budget_per_s / kind.price_per_s + 1e-9) if kind.price_per_s else kind.most) + 1
        )
        for kind in types
    ]
    for counts in itertools.product(*ranges):
        left = budget_per_s - sum(k.price_per_s * c for k, c in zip(types, counts, strict=True))
        full = all(k.price_per_s > left + 1e-9 or c >= k.most for k, c in zip(types, counts, strict=True))
        if left >= -1e-9 and full:
            yield counts


def best_mix(
    types: Sequence[InstanceType],
    sizes: Sequence[float],
    deadline_s: float,
    budget_per_s: float,
    near: int = 10,
) -> tuple[int, ...]:
    """The mix to take: of those whose bounds are close to the highest, the one that is most like the others.

    Bounds that are within a tenth do not tell which mix is best, but good mixes are neighbours. Of those at
    most the `near` highest count.

    Raises:
        Infeasible: no mix within the budget answers the longest request in time.
    """
    bounds = {counts: most_per_s(types, counts, sizes, deadline_s) for counts in mixes(types, budget_per_s)}
    ranked = sorted((counts for counts in bounds if bounds[counts] > 0), key=lambda counts: -bounds[counts])
    if not ranked:
        raise Infeasible(
            f"no mix of instances for {budget_per_s:.3g} a second answers the longest request within "
            f"{deadline_s:.3g} s",
            hint="raise budget_per_hour or deadline_s",
            param="budget_per_hour",
        )
    top = [counts for counts in ranked[:near] if bounds[counts] >= 0.9 * bounds[ranked[0]]]
    return min(
        top, key=lambda one: sum(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) for other in top)
    )
