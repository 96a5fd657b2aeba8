"""Keys are sampled by colliding hashes, and each stands for those that were not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from pentad.execution.attention_filter import Chosen, Floats, Look
from pentad.model.attention_filters.base import RowFilter, pairs
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class LshSampling(RowFilter):
    """Samples keys that collide with the query in hash tables, and weighs each by how likely that was.

    A key is sampled where at least two tables agree. The first positions and the last ones are always
    attended to.

    Exactness: lossy; the metric is the error of what attention gives. Cost: the hashes of new keys, and per
    query one look-up in each table.

    Source: Chen et al., "MagicPIG: LSH Sampling for Efficient LLM Generation", ICLR'25, section 4. Our
    difference: keys are not centred, so that a row does not depend on how its text was cut; tables are
    compared, not indexed.
    """

    name: ClassVar[str] = "lsh-sampling"

    tables: int = 75
    """Hash tables; 0: all positions stay."""
    bits: int = 8
    """Signs of a table's hash."""
    first: int = 4
    """Positions of the text's beginning that are attended to."""
    last: int = 64
    """Positions in front of a token that are."""
    seed: int = 0
    """Of the hashes."""

    def __post_init__(self) -> None:
        in_range("tables", self.tables, least=0, most=1000, hint="change tables")
        in_range("bits", self.bits, least=1, most=16, hint="change bits")
        in_range("first", self.first, least=0, hint="change first")
        in_range("last", self.last, least=1, hint="change last")

    def choose(self, look: Look) -> Chosen:
        if not self.tables:
            return Chosen(keep=look.all())
        seen = look.visible.cumsum(axis=-1)  # counts positions, the own one last
        near = (seen <= self.first) | (seen > seen[:, -1:] - self.last)
        asked, held = (self._hashes(x) for x in (look.queries, look.keys))  # [H, T or S, tables]
        hits = np.stack([(a[:, None] == b[None]).sum(axis=-1) for a, b in zip(asked, held, strict=True)])
        keep = (near | (hits >= 2)) & look.visible
        shares = np.where(near, np.float32(0), -np.log(self.chance(look)))
        return Chosen(
            keep=keep,
            log_shares=shares.astype(np.float32),
            read_bits=pairs(look) * self.tables * self.bits // 8,
        )

    def chance(self, look: Look) -> Floats:
        """[H, T, S] that a key is sampled."""
        lengths = (
            np.linalg.norm(look.queries, axis=-1)[:, :, None] * np.linalg.norm(look.keys, axis=-1)[:, None]
        )
        cosines = look.queries @ look.keys.transpose(0, 2, 1) / np.maximum(lengths, 1e-12)
        hit = (1 - np.arccos(np.clip(cosines, -1, 1)) / np.pi) ** self.bits
        missed = (1 - hit) ** self.tables + self.tables * hit * (1 - hit) ** (self.tables - 1)
        found: Floats = np.maximum(1 - missed, 1e-6).astype(np.float32)
        return found

    def _hashes(self, x: Floats) -> np.ndarray:
        planes = _planes(x.shape[-1], self.tables, self.bits, self.seed)
        signs = (x @ planes > 0).reshape(*x.shape[:-1], self.tables, self.bits)
        found: np.ndarray = (signs << np.arange(self.bits, dtype=np.uint16)).sum(axis=-1, dtype=np.uint16)
        return found


@lru_cache(maxsize=8)
def _planes(dim: int, tables: int, bits: int, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((dim, tables * bits)).astype(np.float32)
