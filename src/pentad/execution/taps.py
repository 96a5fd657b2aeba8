"""Tap: what entered a matrix over a calibration text, and who carries the text through a model."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from pentad.execution.input_rounding import InputRules
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
    low: Floats | None = None
    """The least number that entered each column: [in]."""
    high: Floats | None = None
    """The largest: [in]."""

    def divided(self, factors: Floats) -> Tap:
        """The same where what enters column i had been divided by factors[i] > 0."""
        return Tap(
            rows=self.rows,
            square_sum=self.square_sum / (factors * factors),
            absolute_sum=self.absolute_sum / factors,
            signed_sum=None if self.signed_sum is None else self.signed_sum / factors,
            gram=None if self.gram is None else self.gram / factors / factors[:, None],
            low=None if self.low is None else self.low / factors,
            high=None if self.high is None else self.high / factors,
        )

    def ordered(self, order: npt.NDArray[np.int64]) -> Tap:
        """The same where column i was column order[i]."""
        return Tap(
            rows=self.rows,
            square_sum=self.square_sum[order],
            absolute_sum=self.absolute_sum[order],
            signed_sum=None if self.signed_sum is None else self.signed_sum[order],
            gram=None if self.gram is None else np.ascontiguousarray(self.gram[np.ix_(order, order)]),
            low=None if self.low is None else self.low[order],
            high=None if self.high is None else self.high[order],
        )


class Gradients(Protocol):
    """The loss's gradients, kept on disk, of which a layer is read at a time."""

    def of(self, layer: int) -> Mapping[str, Gradient]:
        """Those of the layer's matrices, by canonical name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How a model in another form predicts a text, beside the model itself."""

    tokens: int
    """Predicted."""
    loss: float
    """Nats per token."""
    exact_loss: float
    """Of the model itself."""
    divergence: float
    """Kullback-Leibler divergence from the model itself, nats per token."""

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)

    @property
    def exact_perplexity(self) -> float:
        return math.exp(self.exact_loss)


class Walk(Protocol):
    """Carries a calibration text through a model, layer by layer, in order."""

    def taps(self, layer: int, source: WeightSource, *, second_moments: bool) -> Mapping[str, Tap]:
        """What enters each matrix of the layer, by canonical name, with the layers before as they now are."""
        ...

    def advance(
        self, layer: int, spec: ModelSpec, source: WeightSource, inputs: InputRules | None = None
    ) -> None:
        """Goes on through the layer in the form that it has now, inputs of matrices rounded by rules."""
        ...

    def fork(self) -> Self:
        """Another one at the same place, which goes its own way."""
        ...

    def compared(self, other: Self) -> Comparison:
        """What the two walks say of each next token, `other` being right; both are behind the last layer."""
        ...

    def hidden(self) -> Floats:
        """The states in front of the next layer: [tokens, E]."""
        ...

    def again(self, windows: int | None = None, window_tokens: int | None = None) -> Self:
        """The same text in front of the first layer, or its first windows and the beginnings of these."""
        ...

    def gradients(self, folder: pathlib.Path) -> Gradients:
        """Those of the whole model as it was; taken from `folder` where an earlier call left them there.

        Memory: one layer with its gradients, and the states of some windows at every layer.
        """
        ...
