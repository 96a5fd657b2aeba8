"""The loss's gradients for every matrix of a model, with one layer in memory at a time.

Forward, the states in front of each layer are kept; backward, layer after layer is loaded again and
the gradient of its outcome becomes that of its matrices and of what entered it.

    folder/gradient-0.npz, gradient-1.npz ...    whole once the folder has its name
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from pentad.errors import Incompatible
from pentad.execution.layers import FeedForward
from pentad.execution.quant import dequantize
from pentad.execution.spec import Attention, ModelSpec
from pentad.execution.taps import Gradient
from pentad.execution.torch.attention import TextAttention
from pentad.execution.torch.loading import WeightLoader
from pentad.execution.torch.program import Program, normed
from pentad.execution.torch.training import Assembly
from pentad.execution.weights import WeightSource

_CPU = torch.device("cpu")
_STATE_BYTES: Final = 256 << 20
"""Windows are taken together whose states at every layer fill so much."""

States = list[torch.Tensor]
"""Of some windows, [T, E] each."""


@dataclass(frozen=True, slots=True)
class GradientFiles:
    """A folder of them."""

    folder: pathlib.Path

    def of(self, layer: int) -> Mapping[str, Gradient]:
        """Those of the layer's matrices, by canonical name."""
        with np.load(_file(self.folder, layer), allow_pickle=False) as arrays:
            windows = int(arrays["windows"])
            names = [key.removeprefix("total/") for key in arrays if key.startswith("total/")]
            return {
                f"layers.{layer}.{name}": Gradient(
                    windows=windows, total=arrays[f"total/{name}"], square_sum=arrays[f"square/{name}"]
                )
                for name in names
            }


def loss_gradients(
    spec: ModelSpec, source: WeightSource, texts: Sequence[Sequence[int]], folder: pathlib.Path
) -> GradientFiles:
    """The gradients of each text's mean loss, in `folder`, made unless they are there.

    Cost: a forward and a backward pass of all texts; the weights are read twice for each group of texts.
    Raises Incompatible for a model that does not generate text, or with other than dense layers.
    """
    if not folder.exists():
        _check(spec)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        one = _Pass(spec, source, partial)
        for group in _groups(spec, texts):
            one.run([torch.tensor(text) for text in group])
        partial.rename(folder)
    return GradientFiles(folder)


def _check(spec: ModelSpec) -> None:
    plain = all(
        isinstance(b.mixer, Attention) and isinstance(b.feed_forward, FeedForward) for b in spec.blocks
    )
    if not spec.causal or spec.encoder is not None or not plain:
        raise Incompatible(
            f"gradients are had of models that generate text by plain layers, which {spec.name!r} does not",
            hint="choose a method that needs no gradients",
        )


def _groups(spec: ModelSpec, texts: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    each = max(len(text) for text in texts) * spec.width * 4 * (spec.layers + 1)
    together = max(1, _STATE_BYTES // each)
    for start in range(0, len(texts), together):
        yield texts[start : start + together]


class _Pass:
    """Adds the gradients of groups of windows up, in files."""

    def __init__(self, spec: ModelSpec, source: WeightSource, folder: pathlib.Path) -> None:
        self._spec = spec
        self._source = source
        self._folder = folder
        outside = WeightLoader(spec, source, dtype=torch.float32, device=_CPU).outside()
        self._program = Program(spec, outside)

    def run(self, windows: States) -> None:
        places = [torch.arange(len(window)) for window in windows]
        kept = self._forward(windows, places)
        slopes = [self._slope(x, window) for x, window in zip(kept.pop(), windows, strict=True)]
        for layer in reversed(range(self._spec.layers)):
            slopes = self._backward(layer, kept.pop(), slopes, places)

    def _forward(self, windows: States, places: States) -> list[States]:
        """The states in front of every layer, and behind the last."""
        with torch.no_grad():
            pairs = zip(windows, places, strict=True)
            kept = [[self._program.embedded(window, at) for window, at in pairs]]
            for layer in range(self._spec.layers):
                tensors = self._tensors(layer)
                kept.append(
                    [self._block(layer, tensors, x, at) for x, at in zip(kept[-1], places, strict=True)]
                )
        return kept

    def _slope(self, x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        """The gradient of the loss for the last states [T, E] of a window."""
        leaf = x.detach().requires_grad_()
        norm = self._program.weights.final_norm
        states = leaf if norm is None else normed(leaf, norm)
        loss = F.cross_entropy(self._program.logits(states[:-1]), window[1:])
        return torch.autograd.grad(loss, leaf)[0]

    def _backward(self, layer: int, entered: States, slopes: States, places: States) -> States:
        """Counts the layer's gradients; those for what entered it."""
        tensors = self._tensors(layer)
        matrices = {name: tensor.requires_grad_() for name, tensor in tensors.items() if tensor.ndim == 2}
        totals = {name: torch.zeros_like(tensor) for name, tensor in matrices.items()}
        squares = {name: torch.zeros_like(tensor) for name, tensor in matrices.items()}
        found = []
        for x, slope, at in zip(entered, slopes, places, strict=True):
            leaf = x.detach().requires_grad_()
            outcome = self._block(layer, tensors, leaf, at)
            before, *own = torch.autograd.grad(outcome, [leaf, *matrices.values()], slope)
            for name, gradient in zip(matrices, own, strict=True):
                totals[name] += gradient
                squares[name].addcmul_(gradient, gradient)
            found.append(before)
        self._add(layer, len(entered), totals, squares)
        return found

    def _block(
        self, layer: int, tensors: Mapping[str, torch.Tensor], x: torch.Tensor, at: torch.Tensor
    ) -> torch.Tensor:
        weights = Assembly(self._spec, self._source, tensors).layer(layer)
        attend = TextAttention(self._spec, [len(x)], self._program.rules)
        return self._program.block(layer, weights, x, self._program.tables(at), attend)

    def _tensors(self, layer: int) -> dict[str, torch.Tensor]:
        prefix = f"layers.{layer}."
        names = [name for name in self._source.names() if name.startswith(prefix)]
        return {name: torch.from_numpy(np.array(dequantize(self._source.tensor(name)))) for name in names}

    def _add(
        self,
        layer: int,
        windows: int,
        totals: Mapping[str, torch.Tensor],
        squares: Mapping[str, torch.Tensor],
    ) -> None:
        """Brings a group's gradients of the layer to those of the groups before."""
        path, prefix = _file(self._folder, layer), f"layers.{layer}."
        sums = {"total": totals, "square": squares}
        arrays = {
            f"{kind}/{name.removeprefix(prefix)}": tensor.numpy()
            for kind, tensors in sums.items()
            for name, tensor in tensors.items()
        }
        if path.exists():
            with np.load(path, allow_pickle=False) as before:
                windows += int(before["windows"])
                arrays = {key: array + before[key] for key, array in arrays.items()}
        np.savez(path, windows=np.int64(windows), **arrays)


def _file(folder: pathlib.Path, layer: int) -> pathlib.Path:
    return folder / f"gradient-{layer}.npz"
