"""Recourse: a mix of variants that follows its load slot by slot, with a price on every start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pentad.resource.scaling.variants import Variant

Array = npt.NDArray[np.float64]
_HALVINGS = 60
_NEAR = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotCosts:
    """What a slot of time costs, variant by variant."""

    capacity: Array
    """Of a replica."""
    running: Array
    """Of a replica over the slot, with what its errors are worth."""
    starting: Array
    """Of one more replica; above 0."""
    most: Array
    """Replicas that there can be."""

    @classmethod
    def of(
        cls,
        variants: Sequence[Variant],
        *,
        slot_s: float,
        error_price: float,
        errors: Sequence[float],
        starts_s: Sequence[float],
    ) -> SlotCosts:
        """By what variants cost and take to start.

        Args:
            slot_s: seconds of a slot.
            error_price: money that a wrong answer is worth.
            errors: share of wrong answers, of each variant.
            starts_s: seconds that a start of each takes; counted as a slot at least.
        """
        capacity = np.array([kind.capacity for kind in variants])
        price = np.array([kind.price_per_s for kind in variants])
        start_s = np.array([max(seconds, slot_s) for seconds in starts_s])
        return cls(
            capacity=capacity,
            running=slot_s * (price + error_price * capacity * np.array(errors)),
            starting=np.maximum(price * start_s, _NEAR),
            most=np.array([float(kind.most) for kind in variants]),
        )

    def total(self, mixes: Sequence[Array]) -> float:
        """Of one mix after the other, from none up."""
        before, found = np.zeros(len(self.capacity)), 0.0
        for mix in mixes:
            found += float(self.running @ mix + self.starting @ np.maximum(0.0, mix - before))
            before = mix
        return found


def regularized(costs: SlotCosts, before: Array, need: float, *, eagerness: float, near: float) -> Array:
    """Fractions of replicas for one slot that hold a need; all, where all are too few.

    Minimises what the slot costs and, in the place of the starts, their relative entropy to the slot before:
    starting / eagerness * ((x + near) * log((x + near) / (before + near)) - x). So a mix goes down little by
    little, the slower the dearer it is to come back, and is worth its starts without any forecast. The
    minimum has x + near = (before + near) * exp(eagerness * (price * capacity - running) / starting) with one
    price of the need, which is found by halving.
    """

    def at(price: float) -> Array:
        power = eagerness * (price * costs.capacity - costs.running) / costs.starting
        grown: Array = (before + near) * np.exp(np.clip(power, -50, 50)) - near
        return np.clip(grown, 0.0, costs.most)

    if costs.capacity @ costs.most <= need:
        return costs.most
    low, high = 0.0, 1.0
    if costs.capacity @ at(low) >= need:
        return at(low)
    while costs.capacity @ at(high) < need:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if costs.capacity @ at(middle) >= need else (middle, high)
    return at(high)


def rounded(costs: SlotCosts, fractions: Array, need: float, draws: Array) -> tuple[int, ...]:
    """Whole replicas that hold the need: a fraction goes up where it and its variant's draw pass 1.

    On the mean that is the fraction itself. The draws stay over all slots, so that counts change no more
    often than fractions do. What is short then is added, the cheapest way first.
    """
    counts = np.minimum(np.floor(fractions + draws), costs.most)
    while (short := need - costs.capacity @ counts) > _NEAR:
        free = [i for i in range(len(counts)) if counts[i] < costs.most[i] and costs.capacity[i] > 0]
        if not free:
            break
        counts[min(free, key=lambda i: costs.running[i] * math.ceil(short / costs.capacity[i]))] += 1
    return tuple(int(count) for count in counts)
