"""Tap: what entered a matrix over a calibration text, and who carries the text through a model."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad.execution.spec import ModelSpec
from pentad.execution.weights import WeightSource

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """What the loss of the calibration windows says of a matrix, each window's mean over its tokens."""

    windows: int
    total: Floats
    """Sum of the windows' gradients: [out, in]."""
    square_sum: Floats
    """Sum of their squares: [out, in]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """Sums over the rows, one per token, that entered a matrix."""

    rows: int
    square_sum: Floats
    """Per input column: [in]."""
    absolute_sum: Floats
    """Per input column: [in]."""
    signed_sum: Floats | None = None
    """Per input column, the mean times `rows`: [in]; None in taps that nobody counted so."""
    gram: Floats | None = None
    """x^T x: [in, in]; None unless it was asked for."""
    gradient: Gradient | None = None
    """Of the model as it was before anything changed; None unless it was asked for."""


class Gradients(Protocol):
    """The loss's gradients, kept on disk, of which a layer is read at a time."""

    def of(self, layer: int) -> Mapping[str, Gradient]:
        """Those of the layer's matrices, by canonical name."""
        ...


class Walk(Protocol):
    """Carries a calibration text through a model, layer by layer, in order."""

    def taps(self, layer: int, source: WeightSource, *, second_moments: bool) -> Mapping[str, Tap]:
        """What enters each matrix of the layer, by canonical name, with the layers before as they now are."""
        ...

    def advance(self, layer: int, spec: ModelSpec, source: WeightSource) -> None:
        """Goes on through the layer in the form that it has now."""
        ...

    def hidden(self) -> Floats:
        """The states in front of the next layer: [tokens, E]."""
        ...

    def again(self) -> Walk:
        """The same text in front of the first layer."""
        ...

    def gradients(self, folder: pathlib.Path) -> Gradients:
        """Those of the whole model as it was; taken from `folder` where an earlier call left them there.

        Memory: one layer with its gradients, and the states of some windows at every layer.
        """
        ...
