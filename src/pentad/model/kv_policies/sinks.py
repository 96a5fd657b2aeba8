"""Attention sinks: the first tokens of a text and the last ones stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.kv.policy import KVView
from pentad.model.kv_policies.base import BudgetPolicy, Ranks
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinks(BudgetPolicy):
    """Keeps the first tokens, which draw attention whatever they say, and a window of the last ones.

    Exactness: lossy; the metric is perplexity. Cost: one comparison per slot and step; no attention
    scores.

    Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks", ICLR'24, section
    3.2. Our difference: positions are kept as in the text and not renumbered within the cache, so texts
    end with the model's context; a prompt is computed with full attention and cut at its end.
    """

    name: ClassVar[str] = "sinks"

    first: int = 4
    """Tokens kept from the beginning of the text; the sinks."""
    last: int = 508
    """Tokens kept from its end; the window."""

    def __post_init__(self) -> None:
        in_range("first", self.first, least=0, hint="change first")
        in_range("last", self.last, least=1, hint="change last")

    @property
    def budget(self) -> int:
        return self.first + self.last

    def rank(self, view: KVView) -> Ranks:
        return np.where(view.positions < self.first, np.inf, view.positions)
