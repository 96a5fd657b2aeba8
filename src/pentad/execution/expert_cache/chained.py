"""Which experts follow which is counted, and the likely ones are brought."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.expert_cache.base import Expert, ExpertRun, Mixture
from pentad.execution.expert_cache.recent import UseOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Chained:
    """Brings the experts that have most often followed those that this layer uses; those used last stay.

    Exactness: lossless.
    Cost: a table of counts for each two layers in a row, experts times experts.
    Source: Yi et al. 2023 (EdgeMoE), section 3.3: there the tables are made before the start, from paths
    through two layers; here they are counted as experts are used, from paths through one.
    """

    name: ClassVar[str] = "chained"
    guesses: ClassVar[bool] = False
    ahead: int = 2
    """Experts of the next layer that are brought."""

    def start(self, mixture: Mixture) -> ExpertRun:
        return _ChainedRun(mixture, self.ahead)


class _ChainedRun(UseOrder):
    def __init__(self, mixture: Mixture, ahead: int) -> None:
        super().__init__(mixture)
        self._ahead = ahead
        layers = sorted(mixture.counts)
        pairs = itertools.pairwise(layers)
        self._follows = {b: np.zeros((mixture.counts[a], mixture.counts[b])) for a, b in pairs}
        self._before: list[int] = []

    def begin(self, *, started: bool) -> None:  # noqa: ARG002
        self._before = []

    def used(self, layer: int, rows: Mapping[int, int]) -> None:
        super().used(layer, rows)
        if self._before and layer in self._follows:
            self._follows[layer][np.ix_(self._before, list(rows))] += 1
        self._before = list(rows)

    def ahead(self, layer: int, rows: Mapping[int, int], guessed: Sequence[int]) -> Sequence[Expert]:  # noqa: ARG002
        behind = self.mixture.after(layer)[:1]
        if not behind:
            return ()
        seen = self._follows[behind[0]][list(rows)]
        likely = (seen / np.maximum(seen.sum(axis=1, keepdims=True), 1)).sum(axis=0)
        best = np.argsort(-likely, kind="stable")[: self._ahead]
        return [(behind[0], int(number)) for number in best if likely[number]]
