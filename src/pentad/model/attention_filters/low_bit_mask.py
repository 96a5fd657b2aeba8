"""Scores of few bits predict which weights matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.attention_filter import Chosen, Look
from pentad.model.attention_filters.base import RowFilter, pairs, rounded, softmax
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class LowBitMask(RowFilter):
    """Attends where the weights that queries and keys of few bits give reach a threshold.

    Exactness: lossy; the metric is perplexity. Cost: a product and a softmax in few bits over all positions.

    Source: Lu et al., "Sanger: A Co-Design Framework for Enabling Sparse Attention using Reconfigurable
    Architecture", MICRO'21, sections 4.1 and 4.2. Our difference: the model is not tuned with the mask in
    place; `packed_rows` tells how the rows left would fill an array, here they are computed under a mask.
    """

    name: ClassVar[str] = "low-bit-mask"

    bits: int = 4
    """Of queries and keys, sign included."""
    threshold: float = 0.002
    """Predicted weight, of a sum of 1, from which a position is attended to."""

    def __post_init__(self) -> None:
        in_range("bits", self.bits, least=2, most=8, hint="change bits")
        in_range("threshold", self.threshold, least=0, most=1, hint="change threshold")

    def choose(self, look: Look) -> Chosen:
        predicted = softmax(look.scores(rounded(look.queries, self.bits), rounded(look.keys, self.bits)))
        return Chosen(
            keep=(predicted >= self.threshold) & look.visible,
            read_bits=pairs(look) * self.bits * look.keys.shape[-1],
        )


def packed_rows(lengths: Sequence[int], lanes: int) -> int:
    """Rows of an array of so many lanes that hold sparse rows of these lengths: each is split into full rows,
    and the rests share rows, the longest first."""
    full, rests = 0, []
    for length in lengths:
        full += length // lanes
        if length % lanes:
            rests.append(length % lanes)
    room: list[int] = []
    for rest in sorted(rests, reverse=True):
        at = next((i for i, left in enumerate(room) if left >= rest), None)
        if at is None:
            room.append(lanes - rest)
        else:
            room[at] -= rest
    return full + len(room)
