"""A calibration text carried through a model layer by layer, and what enters each matrix on the way."""

from __future__ import annotations

import copy
import math
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from pentad.execution.input_rounding import InputRules
from pentad.execution.spec import ModelSpec
from pentad.execution.taps import Comparison, Gradients, Tap
from pentad.execution.torch.attention import TextAttention
from pentad.execution.torch.gradients import loss_gradients
from pentad.execution.torch.loading import LayerWeights, WeightLoader
from pentad.execution.torch.program import Program, normed
from pentad.execution.torch.walk_inputs import rounding, watched
from pentad.execution.weights import WeightSource

_CPU = torch.device("cpu")
_ROWS = 128
"""Whose probabilities are compared at once."""


@dataclass(slots=True)
class InputStatistics:
    """Sums over the rows that entered a matrix."""

    second_moments: bool
    rows: int = 0
    square_sum: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    absolute_sum: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    signed_sum: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    gram: npt.NDArray[np.float32] | None = None
    low: npt.NDArray[np.float32] | None = None
    high: npt.NDArray[np.float32] | None = None

    def add(self, x: torch.Tensor) -> None:
        """Counts rows [N, in]."""
        self.rows += len(x)
        square, absolute, signed = x.square().sum(0).numpy(), x.abs().sum(0).numpy(), x.sum(0).numpy()
        self.square_sum = square if not self.square_sum.size else self.square_sum + square
        self.absolute_sum = absolute if not self.absolute_sum.size else self.absolute_sum + absolute
        self.signed_sum = signed if not self.signed_sum.size else self.signed_sum + signed
        low, high = x.amin(0).numpy(), x.amax(0).numpy()
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        if self.second_moments:
            gram = (x.t() @ x).numpy()
            self.gram = gram if self.gram is None else self.gram + gram

    def see(self, x: torch.Tensor) -> torch.Tensor:
        """Counts rows and passes them on."""
        self.add(x)
        return x

    def tap(self) -> Tap:
        """What was counted."""
        return Tap(
            rows=self.rows,
            square_sum=self.square_sum,
            absolute_sum=self.absolute_sum,
            signed_sum=self.signed_sum,
            gram=self.gram,
            low=self.low,
            high=self.high,
        )


class LayerWalk:
    """The hidden states of some texts, in float32, in front of the next layer.

    Holds one layer's weights at a time and [tokens, E] numbers. Layers are taken in order: `taps`
    may look at the next one in any form, `advance` goes through it in the form that it keeps.

    Args:
        texts: token ids, none longer than the model's context.
    """

    def __init__(self, spec: ModelSpec, source: WeightSource, texts: Sequence[Sequence[int]]) -> None:
        loader = WeightLoader(spec, source, dtype=torch.float32, device=_CPU)
        with torch.inference_mode():
            self._outside = loader.outside()
            tokens = torch.tensor([token for text in texts for token in text])
            self._tokens = tokens
            self._positions = torch.cat([torch.arange(len(text)) for text in texts])
            self._hidden = Program(spec, self._outside).embedded(tokens, self._positions)
        self._spec = spec
        self._source = source
        self._texts = texts
        self._lengths = [len(text) for text in texts]
        self._last = torch.zeros(len(tokens), dtype=torch.bool)
        self._last[torch.tensor(self._lengths).cumsum(0) - 1] = True

    def again(self, windows: int | None = None, window_tokens: int | None = None) -> LayerWalk:
        """The same texts in front of the first layer, or the first of them and their beginnings."""
        texts = [text[:window_tokens] for text in self._texts[:windows]]
        return LayerWalk(self._spec, self._source, texts)

    def hidden(self) -> npt.NDArray[np.float32]:
        """The states in front of the next layer: [tokens, E]."""
        found: npt.NDArray[np.float32] = self._hidden.numpy()
        return found

    def gradients(self, folder: pathlib.Path) -> Gradients:
        """Those of the loss, of the model as it was; see gradients.py."""
        return loss_gradients(self._spec, self._source, self._texts, folder)

    def taps(self, layer: int, source: WeightSource, *, second_moments: bool = False) -> dict[str, Tap]:
        """What enters each matrix of the layer, by canonical name; nothing moves on."""
        q, o, gate, down = (InputStatistics(second_moments) for _ in range(4))
        weights = self._load(self._spec, layer, source)
        # Keys and values see what queries see, the gate what the up projection sees.
        seen = {"q": q.see, "o": o.see, "up": gate.see, "down": down.see}
        tapped = watched(self._spec, layer, weights, seen)
        self._through(self._spec, layer, tapped)
        found = {"q": q, "k": q, "v": q, "o": o, "gate": gate, "up": gate, "down": down}
        return {f"layers.{layer}.{name}": statistics.tap() for name, statistics in found.items()}

    def advance(
        self, layer: int, spec: ModelSpec, source: WeightSource, inputs: InputRules | None = None
    ) -> None:
        """Goes through the layer as `spec` and `source` have it, inputs of matrices rounded by rules."""
        weights = self._load(spec, layer, source)
        if inputs:
            see = rounding(inputs, layer)
            weights = watched(spec, layer, weights, see, gate=see["up"])
        self._hidden = self._through(spec, layer, weights)

    def fork(self) -> LayerWalk:
        """Another one at the same place, which goes its own way."""
        return copy.copy(self)  # hidden states are replaced, never written to

    def compared(self, other: LayerWalk) -> Comparison:
        """What the two say of each next token, `other` being right; both behind the last layer."""
        wanted, losses, exact, gaps = self._tokens, [0.0], [0.0], [0.0]
        with torch.inference_mode():
            for at in range(0, len(wanted), _ROWS):
                rows = torch.arange(at, min(at + _ROWS, len(wanted)))
                rows = rows[~self._last[rows]]
                mine, right = self._log_probabilities(rows), other._log_probabilities(rows)
                next_one = wanted[rows + 1][:, None]
                losses.append(-mine.gather(1, next_one).sum().item())
                exact.append(-right.gather(1, next_one).sum().item())
                gaps.append((right.exp() * (right - mine)).sum().item())
        count = len(wanted) - len(self._lengths)
        return Comparison(
            tokens=count,
            loss=math.fsum(losses) / count,
            exact_loss=math.fsum(exact) / count,
            divergence=math.fsum(gaps) / count,
        )

    def _log_probabilities(self, rows: torch.Tensor) -> torch.Tensor:
        """[R, V] of what follows those rows."""
        norm = self._outside.final_norm
        hidden = self._hidden[rows]
        program = Program(self._spec, self._outside)
        return program.logits(hidden if norm is None else normed(hidden, norm)).log_softmax(-1)

    def _load(self, spec: ModelSpec, layer: int, source: WeightSource) -> LayerWeights:
        return WeightLoader(spec, source, dtype=torch.float32, device=_CPU).layer(layer)

    def _through(self, spec: ModelSpec, layer: int, weights: LayerWeights) -> torch.Tensor:
        with torch.inference_mode():
            program = Program(spec, self._outside)
            attend = TextAttention(spec, self._lengths, program.rules)
            return program.block(layer, weights, self._hidden, program.tables(self._positions), attend)
