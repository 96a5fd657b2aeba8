"""Numbers of keys that matter least to a query are not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.attention_filter import FULL_BITS, Chosen, Look
from pentad.model.attention_filters.base import RowFilter, pairs
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChannels(RowFilter):
    """Scores old positions without the channels of keys that add least to a query's products.

    A channel adds the query's number there times the norm of that of all keys.

    Exactness: lossy; the metric is perplexity. Cost: a number per channel and row; norms of the keys'
    channels.

    Source: Xu et al., "ThinK: Thinner Key Cache by Query-Driven Pruning", ICLR'25, section 3.2. Our
    difference: channels are chosen for every row anew and are not taken out of the cache, so bytes are saved
    in reading, not in memory.
    """

    name: ClassVar[str] = "key-channels"

    dropped: float = 0.4
    """Of the channels of a head, how many are not read."""
    last: int = 32
    """Positions in front of a token whose channels are all read."""
    random: bool = False
    """Whether any channels are dropped instead, to compare with."""

    def __post_init__(self) -> None:
        in_range("dropped", self.dropped, least=0, most=1, hint="change dropped")
        in_range("last", self.last, least=1, hint="change last")

    def choose(self, look: Look) -> Chosen:
        dim = look.keys.shape[-1]
        gone = int(self.dropped * dim)
        if not gone:
            return Chosen(keep=look.all())
        if self.random:
            worth = np.random.default_rng(look.layer).random((len(look.queries), 1, dim))
            worth = np.broadcast_to(worth, look.queries.shape)
        else:
            worth = np.abs(look.queries) * np.sqrt(look.visible.astype(np.float32) @ np.square(look.keys))
        dropped = np.argsort(worth, axis=-1, kind="stable")[:, :, :gone]
        thin = look.queries.copy()
        np.put_along_axis(thin, dropped, 0, axis=-1)
        seen = look.visible.cumsum(axis=-1)
        near = seen > seen[:, -1:] - self.last
        scores = np.where(near, look.scores(look.queries, look.keys), look.scores(thin, look.keys))
        exact = int((near & look.visible).sum()) * len(look.queries)
        bits = (exact * dim + (pairs(look) - exact) * (dim - gone)) * FULL_BITS
        return Chosen(keep=look.all(), scores=scores, score_bits=bits)
