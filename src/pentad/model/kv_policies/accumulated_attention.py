"""Heavy hitters: what has been attended to most stays, and a window of the last tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.kv.policy import Feature, KVView, Need
from pentad.model.kv_policies.base import BudgetPolicy, Ranks
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class AccumulatedAttention(BudgetPolicy):
    """Keeps, in every head for itself, the entries with most attention so far and a window of the last ones.

    Exactness: lossy; the metric is perplexity. Cost: attention is counted per slot, and each head's least
    attended entry is looked for after every step. Prompts are not shared, since what was not computed was
    not attended to by this text.

    Source: Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language
    Models", NeurIPS'23, algorithm 1. Our difference: query heads that share a KV head add their attention;
    a prompt is computed with full attention and cut at its end; positions stay those of the text.
    """

    name: ClassVar[str] = "accumulated-attention"
    needs: ClassVar[frozenset[Need]] = frozenset({"attention-scores"})
    excludes: ClassVar[frozenset[Feature]] = frozenset({"speculation", "prefix-cache"})

    heavy: int = 256
    """Entries kept for the attention that they have had."""
    recent: int = 256
    """Last tokens that are kept whatever they had."""

    def __post_init__(self) -> None:
        in_range("heavy", self.heavy, least=0, hint="change heavy")
        in_range("recent", self.recent, least=1, hint="change recent")

    @property
    def budget(self) -> int:
        return self.heavy + self.recent

    def rank(self, view: KVView) -> Ranks:
        return np.where(view.positions >= view.computed - self.recent, np.inf, view.scores())
