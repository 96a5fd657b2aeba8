"""Inputs of one type whose lengths are near each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.input_batching.base import InputBatch, WaitingInput, alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucketed:
    """Takes the first input and, of its type, those nearest to it in length, as long as little is padding.

    The bucket is made around whoever has waited longest: of the inputs sorted by size it is the largest run
    with the first one in it whose padding is at most `most_waste` and whose padded size at most
    `most_size`. So buckets follow the lengths that come, and a batch of short inputs has more of them. Nobody
    waits for a bucket to fill. Exactness: lossless. Cost: one sort.

    Source: batching by length buckets, as in sequence training (Khomenko et al., 2016); our difference: the
    bounds are not fixed but those that the waiting inputs allow.
    """

    most_waste: float = 0.1
    """Share of a batch that may be padding, 0 to 1."""
    most_size: int = 8192
    """Padded size of a batch of several inputs, at most."""
    most_items: int = 64
    """Inputs of a batch, at most."""

    name: ClassVar[str] = "bucketed"

    def __post_init__(self) -> None:
        in_range("most_waste", self.most_waste, least=0, most=0.99)
        in_range("most_size", self.most_size, least=1)
        in_range("most_items", self.most_items, least=1)

    def next(self, waiting: Sequence[WaitingInput]) -> InputBatch:
        order = sorted(alike(waiting), key=lambda item: item.size)
        sums = list(itertools.accumulate((item.size for item in order), initial=0))
        at = order.index(waiting[0])
        best = (at, at + 1)
        for high in range(at + 1, len(order) + 1):
            longest = order[high - 1].size
            # With a given longest one, whatever fits fits without its shortest ones too.
            low, most = 0, at
            while low < most:
                middle = (low + most) // 2
                if self._fits(high - middle, sums[high] - sums[middle], longest):
                    most = middle
                else:
                    low = middle + 1
            total = sums[high] - sums[low]
            if total > sums[best[1]] - sums[best[0]] and self._fits(high - low, total, longest):
                best = (low, high)
        return InputBatch(items=tuple(order[best[0] : best[1]]))

    def _fits(self, count: int, total: int, longest: int) -> bool:
        """Whether so many inputs of so much size in all make a batch."""
        padded = longest * count
        little = padded - total <= self.most_waste * padded
        return count == 1 or (count <= self.most_items and padded <= self.most_size and little)

    def cost(self, waiting: int) -> float:
        return 2e-6 + 1e-6 * waiting
