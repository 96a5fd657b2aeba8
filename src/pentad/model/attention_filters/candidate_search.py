"""The largest partial products of a query name the candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.attention_filter import Chosen, Floats, Look, Mask
from pentad.model.attention_filters.base import RowFilter
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSearch(RowFilter):
    """Attends to keys whose largest and smallest products of single numbers add up to more than nothing.

    Keys sorted number by number give the products of a query in order, largest and smallest first. So many of
    both are added up, and a key with a positive sum is a candidate. Of their weights, small ones are dropped.

    Exactness: lossy; the metric is perplexity. Cost: two sorted products a position and step (`products`),
    and the sorting of new keys.

    Source: Ham et al., "A3: Accelerating Attention Mechanisms in Neural Networks with Approximation",
    HPCA'20, sections IV-C and IV-D. Our difference: the products are sorted in one go, which finds those that
    the queues of its hardware find one by one; small products are not skipped while the sum is negative.
    """

    name: ClassVar[str] = "candidate-search"

    products: float = 1.0
    """Largest, and as many smallest, products that are added up, for each position; 0: all positions stay."""
    least: float = 0.01
    """Of the largest weight of a row, how much a candidate must have for its value to be read."""

    def __post_init__(self) -> None:
        in_range("products", self.products, least=0, hint="change products")
        in_range("least", self.least, least=0, most=1, hint="change least")

    def choose(self, look: Look) -> Chosen:
        if not self.products:
            return Chosen(keep=look.all())
        counts = np.ceil(self.products * look.visible.sum(axis=-1)).astype(np.int64)  # [T]
        keep = np.stack(
            [_candidates(q, k, look.visible, counts) for q, k in zip(look.queries, look.keys, strict=True)]
        )
        return Chosen(keep=keep, read_bits=int(2 * counts.sum()) * len(keep) * 32)

    def skip(self, weights: Floats) -> Mask | None:
        read: Mask = weights >= self.least * weights.max(axis=-1, keepdims=True)
        return read


def _candidates(queries: Floats, keys: Floats, visible: Mask, counts: np.ndarray) -> Mask:
    """[T, S] of one head."""
    products = queries[:, None] * keys[None] * visible[:, :, None]  # [T, S, D]
    in_order = np.sort(products.reshape(len(queries), -1), axis=-1)
    counts = np.minimum(counts, in_order.shape[1])
    at = np.arange(len(queries))
    high, low = (in_order[at, each][:, None, None] for each in (in_order.shape[1] - counts, counts - 1))
    above = np.where((products >= high) & (products > 0), products, 0).sum(axis=-1)
    below = np.where((products <= low) & (products < 0), products, 0).sum(axis=-1)
    found: Mask = (above + below > 0) & visible
    return found
