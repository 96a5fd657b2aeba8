"""Inputs in the order in which they came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.input_batching.base import InputBatch, WaitingInput, alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Takes those of the first one's type in the order of arrival, as many as fit, whatever their lengths.

    The baseline. Exactness: lossless.
    """

    most_size: int = 8192
    """Padded size of a batch of several inputs, at most."""
    most_items: int = 64
    """Inputs of a batch, at most."""

    name: ClassVar[str] = "arrival"

    def __post_init__(self) -> None:
        in_range("most_size", self.most_size, least=1)
        in_range("most_items", self.most_items, least=1)

    def next(self, waiting: Sequence[WaitingInput]) -> InputBatch:
        able = alike(waiting)
        longest, count = able[0].size, 1
        for item in able[1 : self.most_items]:
            longest = max(longest, item.size)
            if longest * (count + 1) > self.most_size:
                break
            count += 1
        return InputBatch(items=tuple(able[:count]))

    def cost(self, waiting: int) -> float:
        return 1e-6 + 1e-7 * waiting
