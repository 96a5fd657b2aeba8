"""Values of next to no weight are not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.attention_filter import Floats, Mask
from pentad.model.attention_filters.base import RowFilter
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSkip(RowFilter):
    """Scores every position, and reads the values of those alone whose weight reaches a threshold.

    Exactness: lossy; the metric is perplexity, and what is lost of a sum is at most the weights skipped.
    Cost: a comparison per position; all keys are read.

    Source: Jang et al., "MnnFast: A Fast and Scalable System Architecture for Memory-Augmented Neural
    Networks", ISCA'19, sections 3.1 and 3.2. Our difference: the memory is the KV cache, whose positions are
    the columns.
    """

    name: ClassVar[str] = "weight-skip"

    threshold: float = 0.001
    """Weight, of a sum of 1, below which a value is not read."""

    def __post_init__(self) -> None:
        in_range("threshold", self.threshold, least=0, most=1, hint="change threshold")

    def skip(self, weights: Floats) -> Mask | None:
        read: Mask = weights >= self.threshold
        return read
