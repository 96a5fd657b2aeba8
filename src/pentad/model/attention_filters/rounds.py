"""Several rounds, each of more bits over what the last one left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.attention_filter import Chosen, Floats, Look, Mask
from pentad.model.attention_filters.base import RowFilter, rounded
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds(RowFilter):
    """Drops positions round by round, each scoring what is left with more bits, before exact attention.

    A round keeps what scores at least between the mean of what is left (cut 0) and its highest score (cut 1),
    or its lowest (cut -1).

    Exactness: lossy; the metric is perplexity. Cost: a product of few bits per round over what is left.

    Source: Zhou et al., "Energon: Toward Efficient Acceleration of Transformers Using Dynamic Sparse
    Attention", TCAD'22, section III, algorithm 1. Our difference: rounds read rounded numbers anew, where its
    unit adds the bits that the last round lacked.
    """

    name: ClassVar[str] = "rounds"

    bits: tuple[int, ...] = (4, 8)
    """Of keys in each round; queries have the most of them."""
    cuts: tuple[float, ...] = (-0.2, -0.2)
    """Where each round cuts, -1 (nothing) to 1 (all but the best)."""

    def __post_init__(self) -> None:
        if len(self.bits) != len(self.cuts) or not self.bits:
            raise InvalidRequest(
                f"rounds has {len(self.bits)} bits and {len(self.cuts)} cuts",
                hint="give one of bits and of cuts for each round",
            )
        for bits, cut in zip(self.bits, self.cuts, strict=True):
            in_range("bits", bits, least=2, most=8, hint="change bits")
            in_range("cuts", cut, least=-1, most=1, hint="change cuts")

    def choose(self, look: Look) -> Chosen:
        left, read = look.all(), 0
        queries = rounded(look.queries, max(self.bits))
        for bits, cut in zip(self.bits, self.cuts, strict=True):
            read += int(left.sum()) * bits * look.keys.shape[-1]
            left = _upper(look.scores(queries, rounded(look.keys, bits)), left, cut)
        return Chosen(keep=left, read_bits=read)


def _upper(scores: Floats, left: Mask, cut: float) -> Mask:
    """Of what is left, what scores at least the cut."""
    count = np.maximum(left.sum(axis=-1, keepdims=True), 1)
    mean = np.where(left, scores, 0).sum(axis=-1, keepdims=True) / count
    if cut >= 0:
        end = np.where(left, scores, -np.inf).max(axis=-1, keepdims=True)
    else:
        end = np.where(left, scores, np.inf).min(axis=-1, keepdims=True)
    bound = abs(cut) * end + (1 - abs(cut)) * mean
    kept: Mask = left & (scores >= bound - 1e-6 * np.abs(bound))
    return kept
