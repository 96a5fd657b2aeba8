"""Tap: what entered a matrix over a calibration text, and who carries the text through a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad.execution.spec import ModelSpec
from pentad.execution.weights import WeightSource

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """Sums over the rows, one per token, that entered a matrix."""

    rows: int
    square_sum: Floats
    """Per input column: [in]."""
    absolute_sum: Floats
    """Per input column: [in]."""
    gram: Floats | None = None
    """x^T x: [in, in]; None unless it was asked for."""


class Walk(Protocol):
    """Carries a calibration text through a model, layer by layer, in order."""

    def taps(self, layer: int, source: WeightSource, *, second_moments: bool) -> Mapping[str, Tap]:
        """What enters each matrix of the layer, by canonical name, with the layers before as they now are."""
        ...

    def advance(self, layer: int, spec: ModelSpec, source: WeightSource) -> None:
        """Goes on through the layer in the form that it has now."""
        ...
