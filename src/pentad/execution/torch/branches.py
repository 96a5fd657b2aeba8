"""A trunk of layers and branches above it, as in ERNIE 3.0: texts in, the last states of every branch out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from pentad.execution.quant import dequantize
from pentad.execution.spec import ModelSpec, Stack
from pentad.execution.torch.attention import TextAttention
from pentad.execution.torch.encoder import TextProgram
from pentad.execution.torch.linear import Linear, linear
from pentad.execution.torch.loading import NormWeights, WeightLoader, Weights
from pentad.execution.torch.program import Program, normed
from pentad.execution.weights import StoredTensor, WeightSource

States = list[npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class _Part:
    """The tensors of a source whose names begin with `prefix`, without it, but for those in `others`."""

    source: WeightSource
    prefix: str = ""
    others: str | None = None

    def names(self) -> Iterable[str]:
        found = (name for name in self.source.names() if name.startswith(self.prefix))
        kept = (n for n in found if self.others is None or not n.startswith(self.others))
        return [name.removeprefix(self.prefix) for name in kept]

    def tensor(self, name: str) -> StoredTensor:
        return self.source.tensor(self.prefix + name).renamed(name)


class TorchBranches:
    """Whole texts through the trunk, once, and through each branch. Computes in float32, without a cache.

    Args:
        spec: with at least one branch, each with a stem of one matrix.
        weights: of trunk and branches.

    Raises:
        BadModelFile: weights that do not fit the spec.
    """

    def __init__(self, spec: ModelSpec, weights: WeightSource, *, device: str = "cpu") -> None:
        trunk = replace(spec, branches=())
        self._trunk = TextProgram(trunk, _Part(weights, others="branches."), dtype="float32", device=device)
        self._branches = {
            name: _Branch(trunk, stack, _Part(weights, f"branches.{name}."), torch.device(device))
            for name, stack in spec.branches
        }
        self.trunk_passes = 0
        """How often the trunk was computed."""

    def states(self, texts: Sequence[Sequence[int]]) -> dict[str, States]:
        """Branch to the last states [T, width of the branch] of each text."""
        lengths = [len(text) for text in texts]
        with torch.inference_mode():
            self.trunk_passes += 1
            shared = torch.cat(tuple(self._trunk.states(texts)))
            found = {name: branch(shared, lengths).split(lengths) for name, branch in self._branches.items()}
        return {name: [text.cpu().numpy() for text in parts] for name, parts in found.items()}


class _Branch:
    """The layers of one branch."""

    def __init__(self, trunk: ModelSpec, stack: Stack, weights: WeightSource, device: torch.device) -> None:
        spec = replace(trunk, stack=stack, head=None, classifier=None)
        loader = WeightLoader(spec, weights, dtype=torch.float32, device=device)
        layers = tuple(loader.layer(i) for i in range(spec.layers))

        def exact(name: str) -> torch.Tensor:
            return torch.from_numpy(dequantize(weights.tensor(name))).to(device)

        self._enter: Linear = linear(exact("stem.0"), exact("stem.0.bias"), pack=False)
        self._norm = None
        if (norm := stack.final_norm) is not None:
            shift = exact("final_norm.bias") if norm.kind == "layer" and norm.bias else None
            scale = exact("final_norm") + norm.offset
            self._norm = NormWeights(scale=scale, shift=shift, eps=norm.eps, kind=norm.kind)
        self._spec, self._layers = spec, layers
        nothing = torch.empty(0, device=device)  # a branch looks no token up
        self._program = Program(spec, _weights(nothing, layers))

    def __call__(self, shared: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Last states [N, width] of trunk states [N, E] of texts that lie end to end."""
        positions = torch.cat([torch.arange(n, device=shared.device) for n in lengths])
        tables = self._program.tables(positions)
        attend = TextAttention(self._spec, lengths, self._program.rules)
        x = self._enter(shared)
        for i, layer in enumerate(self._layers):
            x = self._program.block(i, layer, x, tables, attend)
        return x if self._norm is None else normed(x, self._norm)


def _weights(embed: torch.Tensor, layers: tuple[object, ...]) -> Weights:
    return Weights(
        embed=embed,
        positions=None,
        token_types=None,
        relative=None,
        embed_norm=None,
        layers=layers,  # type: ignore[arg-type]
        final_norm=None,
        head=None,
        tied_bias=None,
        nbytes=0,
    )
