"""Magnitude pruning: a weight is worth its own size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.formats.base import Floats
from pentad.execution.taps import Tap
from pentad.model.transforms.pruning import ScoredPruning


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude(ScoredPruning):
    """Prunes by weight magnitude alone, over each whole matrix.

    Exactness: lossy; the metric is perplexity. Cost: sorting each matrix once.

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    NeurIPS'15. Our difference: no training after it.
    """

    name: ClassVar[str] = "magnitude"
    by_row: ClassVar[bool] = False

    def score(self, values: Floats, tap: Tap | None) -> Floats:
        del tap
        worth: Floats = np.abs(values)
        return worth
