"""Signs of random projections estimate the angle between query and key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from pentad.execution.attention_filter import Chosen, Floats, Look
from pentad.model.attention_filters.base import RowFilter, pairs, softmax
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class SignHash(RowFilter):
    """Attends where hashes of signs promise more than a share of an even weight.

    The bits in which two hashes differ estimate the angle, and with the norm of the key the score.

    Exactness: lossy; the metric is perplexity. Cost: per key a projection, once per step here; per position
    the comparison of two hashes and a number.

    Source: Ham et al., "ELSA: Hardware-Software Co-design for Efficient, Lightweight Self-Attention Mechanism
    in Neural Networks", ISCA'21, sections III-B to III-D. Our difference: the threshold is `share` of an even
    weight in the softmax of the estimates, of the row at hand, where theirs is learned per layer from it.
    """

    name: ClassVar[str] = "sign-hash"

    bits: int = 256
    """Of a hash."""
    share: float = 0.05
    """Of 1 / positions: the estimated weight from which a position is attended to."""
    seed: int = 0
    """Of the projections."""

    def __post_init__(self) -> None:
        in_range("bits", self.bits, least=8, most=4096, hint="change bits")
        in_range("share", self.share, least=0, hint="change share")

    def estimated(self, look: Look) -> Floats:
        """[H, T, S] scores by hashes."""
        planes = projections(look.keys.shape[-1], self.bits, self.seed)
        asked, held = (np.sign(x @ planes).astype(np.float32) for x in (look.queries, look.keys))
        angles = np.pi / 2 * (1 - asked @ held.transpose(0, 2, 1) / self.bits)
        lengths = (
            np.linalg.norm(look.queries, axis=-1)[:, :, None] * np.linalg.norm(look.keys, axis=-1)[:, None]
        )
        found: Floats = np.where(look.visible, np.cos(angles) * lengths * look.scale, -np.inf).astype(
            np.float32
        )
        return found

    def choose(self, look: Look) -> Chosen:
        even = 1 / look.visible.sum(axis=-1, keepdims=True)
        promised = softmax(self.estimated(look))
        return Chosen(
            keep=(promised >= self.share * even) & look.visible, read_bits=pairs(look) * (self.bits + 16)
        )


@lru_cache(maxsize=8)
def projections(dim: int, bits: int, seed: int) -> Floats:
    """[dim, bits] directions, orthogonal to each other as long as there are dimensions."""
    rng = np.random.default_rng(seed)
    parts = [np.linalg.qr(rng.standard_normal((dim, dim)))[0] for _ in range(0, bits, dim)]
    found: Floats = np.concatenate(parts, axis=1)[:, :bits].astype(np.float32)
    return found
