"""GBLM: a weight is worth its magnitude times the size of its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.taps import Tap
from pentad.model.transforms.pruning import ScoredPruning


@dataclass(frozen=True, slots=True, kw_only=True)
class GBLM(ScoredPruning):
    """Prunes by weight magnitude times gradient norm, beside Wanda's score, within each output row.

    Exactness: lossy; the metric is perplexity. Cost: a forward and a backward pass of the calibration
    text through the whole model, kept on disk, then as Wanda.

    Source: Das et al., "Beyond Size: How Gradients Shape Pruning Decisions in Large Language Models",
    2023, equation 5: |W| (activations' norm + scale times gradients' norm). Our difference: norms are
    means over tokens and windows, so that the scale does not depend on how much text there is.
    """

    scale: float = 100.0
    """Weight of the gradients beside the activations; 0 is Wanda."""
    activations: bool = True
    """Whether Wanda's score counts too, or gradients alone."""

    name: ClassVar[str] = "gblm"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients"})

    def __post_init__(self) -> None:
        ScoredPruning.__post_init__(self)
        if self.scale < 0 or (self.scale == 0 and not self.activations):
            raise InvalidRequest(
                f"scale is {self.scale}, must be above 0, or 0 beside activations",
                hint="set scale=100",
                param="scale",
            )

    def score(self, values: Floats, tap: Tap | None) -> Floats:
        assert tap is not None, "its need is declared"
        assert tap.gradient is not None, "its need is declared"
        sizes = np.float32(self.scale) * np.sqrt(tap.gradient.square_sum / np.float32(tap.gradient.windows))
        if self.activations:
            sizes = sizes + np.sqrt(tap.square_sum / np.float32(tap.rows))
        worth: Floats = np.abs(values) * sizes
        return worth
