"""A calibration text carried through a model layer by layer, and what enters each matrix on the way."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from pentad.errors import Incompatible
from pentad.execution.layers import Activation
from pentad.execution.spec import ModelSpec
from pentad.execution.taps import Gradients, Tap
from pentad.execution.torch.attention import TextAttention
from pentad.execution.torch.feed_forward import DenseWeights
from pentad.execution.torch.gradients import loss_gradients
from pentad.execution.torch.linear import Linear
from pentad.execution.torch.loading import AttentionWeights, LayerWeights, WeightLoader
from pentad.execution.torch.program import Program
from pentad.execution.weights import WeightSource

_CPU = torch.device("cpu")


@dataclass(slots=True)
class InputStatistics:
    """Sums over the rows that entered a matrix."""

    second_moments: bool
    rows: int = 0
    square_sum: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    absolute_sum: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    signed_sum: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    gram: npt.NDArray[np.float32] | None = None

    def add(self, x: torch.Tensor) -> None:
        """Counts rows [N, in]."""
        self.rows += len(x)
        square, absolute, signed = x.square().sum(0).numpy(), x.abs().sum(0).numpy(), x.sum(0).numpy()
        self.square_sum = square if not self.square_sum.size else self.square_sum + square
        self.absolute_sum = absolute if not self.absolute_sum.size else self.absolute_sum + absolute
        self.signed_sum = signed if not self.signed_sum.size else self.signed_sum + signed
        if self.second_moments:
            gram = (x.t() @ x).numpy()
            self.gram = gram if self.gram is None else self.gram + gram

    def tap(self) -> Tap:
        """What was counted."""
        return Tap(
            rows=self.rows,
            square_sum=self.square_sum,
            absolute_sum=self.absolute_sum,
            signed_sum=self.signed_sum,
            gram=self.gram,
        )


class _Tapped:
    """A matrix that counts what enters it."""

    def __init__(self, inner: Linear, statistics: InputStatistics) -> None:
        self._inner = inner
        self._statistics = statistics
        self.nbytes = inner.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self._statistics.add(x)
        return self._inner(x)

    def activated(self, x: torch.Tensor, activation: Activation) -> torch.Tensor:
        self._statistics.add(x)
        return self._inner.activated(x, activation)

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        self._statistics.add(x)
        return self._inner.times(x, factor)

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        self._statistics.add(x)
        return self._inner.plus(x, term)


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
            self._positions = torch.cat([torch.arange(len(text)) for text in texts])
            self._hidden = Program(spec, self._outside).embedded(tokens, self._positions)
        self._spec = spec
        self._source = source
        self._texts = texts
        self._lengths = [len(text) for text in texts]

    def again(self) -> LayerWalk:
        """The same texts in front of the first layer."""
        return LayerWalk(self._spec, self._source, self._texts)

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
        inner = weights.feed_forward
        if not isinstance(inner, DenseWeights):
            raise Incompatible(
                f"layer {layer} of {self._spec.name!r} has routed experts, whose inputs are not counted",
                hint="choose a method that needs no calibration",
            )
        mixer = weights.mixer
        if not isinstance(mixer, AttentionWeights) or mixer.gate is not None:
            raise Incompatible(
                f"layer {layer} of model {self._spec.name!r} mixes tokens otherwise than by plain attention",
                hint="choose a method that needs no calibration",
            )
        # Keys and values see what queries see, the gate what the up projection sees.
        tapped = replace(
            weights,
            feed_forward=replace(inner, up=_Tapped(inner.up, gate), down=_Tapped(inner.down, down)),
            mixer=replace(mixer, qkv=_Tapped(mixer.qkv, q), o=_Tapped(mixer.o, o)),
        )
        self._through(self._spec, layer, tapped)
        found = {"q": q, "k": q, "v": q, "o": o, "gate": gate, "up": gate, "down": down}
        return {f"layers.{layer}.{name}": statistics.tap() for name, statistics in found.items()}

    def advance(self, layer: int, spec: ModelSpec, source: WeightSource) -> None:
        """Goes through the layer as `spec` and `source` have it."""
        self._hidden = self._through(spec, layer, self._load(spec, layer, source))

    def _load(self, spec: ModelSpec, layer: int, source: WeightSource) -> LayerWeights:
        return WeightLoader(spec, source, dtype=torch.float32, device=_CPU).layer(layer)

    def _through(self, spec: ModelSpec, layer: int, weights: LayerWeights) -> torch.Tensor:
        with torch.inference_mode():
            program = Program(spec, self._outside)
            attend = TextAttention(spec, self._lengths, program.rules)
            return program.block(layer, weights, self._hidden, program.tables(self._positions), attend)
