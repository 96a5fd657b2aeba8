"""Wanda: a weight is worth its magnitude times the norm of what it multiplies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.formats.base import Floats
from pentad.execution.taps import Tap
from pentad.model.transforms.pruning import ScoredPruning


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanda(ScoredPruning):
    """Prunes by weight magnitude times input norm, within each output row, layer by layer.

    Exactness: lossy; the metric is perplexity. Cost: two passes of the calibration text through
    each layer, and sorting each row.

    Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR'24,
    algorithm 1. No difference.
    """

    name: ClassVar[str] = "wanda"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def score(self, values: Floats, tap: Tap | None) -> Floats:
        assert tap is not None, "its need is declared"
        worth: Floats = np.abs(values) * np.sqrt(tap.square_sum)
        return worth
