"""What stands between a layer's hidden states and its matrices on a walk: counting, or rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from pentad.errors import Incompatible
from pentad.execution.input_rounding import InputRule, InputRules
from pentad.execution.layers import Activation
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.feed_forward import DenseWeights
from pentad.execution.torch.linear import Linear
from pentad.execution.torch.loading import AttentionWeights, LayerWeights

See = Callable[[torch.Tensor], torch.Tensor]
"""Rows [N, in] that enter a matrix, to those that it gets."""


class Watched:
    """A matrix in front of which something stands."""

    def __init__(self, inner: Linear, see: See) -> None:
        self._inner = inner
        self._see = see
        self.nbytes = inner.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._inner(self._see(x))

    def activated(self, x: torch.Tensor, activation: Activation) -> torch.Tensor:
        return self._inner.activated(self._see(x), activation)

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return self._inner.times(self._see(x), factor)

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        return self._inner.plus(self._see(x), term)


def watched(
    spec: ModelSpec, layer: int, weights: LayerWeights, see: Mapping[str, See], gate: See | None = None
) -> LayerWeights:
    """The layer with something in front of its `q` (and `k`, `v`), `o`, `up` and `down`.

    Args:
        gate: in front of the gate, which reads what `up` reads.

    Raises Incompatible for a layer that has other matrices than these.
    """
    inner, mixer = weights.feed_forward, weights.mixer
    if not isinstance(inner, DenseWeights):
        raise Incompatible(
            f"layer {layer} of {spec.name!r} has routed experts, whose inputs are not counted",
            hint="choose a method that needs no calibration",
        )
    if not isinstance(mixer, AttentionWeights) or mixer.gate is not None:
        raise Incompatible(
            f"layer {layer} of model {spec.name!r} mixes tokens otherwise than by plain attention",
            hint="choose a method that needs no calibration",
        )
    return replace(
        weights,
        feed_forward=replace(
            inner,
            up=Watched(inner.up, see["up"]),
            down=Watched(inner.down, see["down"]),
            gate=inner.gate if inner.gate is None or gate is None else Watched(inner.gate, gate),
        ),
        mixer=replace(mixer, qkv=Watched(mixer.qkv, see["q"]), o=Watched(mixer.o, see["o"])),
    )


def rounding(rules: InputRules, layer: int) -> dict[str, See]:
    """What rounds before the matrices of a layer; those without a rule get what comes."""
    names = {part: f"layers.{layer}.{part}" for part in ("q", "o", "up", "down")}
    return {part: _rounder(rules[name]) if name in rules else _nothing for part, name in names.items()}


def _nothing(x: torch.Tensor) -> torch.Tensor:
    return x


def _rounder(rule: InputRule) -> See:
    """See input_rounding.rounded_inputs."""
    if rule.scale is None or rule.offset is None:
        top = (1 << (rule.bits - 1)) - 1

        def per_token(x: torch.Tensor) -> torch.Tensor:
            scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-8) / top
            return (x / scale).round().clamp(-top - 1, top) * scale

        return per_token
    scales, offsets, most = torch.from_numpy(rule.scale), torch.from_numpy(rule.offset), (1 << rule.bits) - 1

    def fixed(x: torch.Tensor) -> torch.Tensor:
        return ((x - offsets) / scales).round().clamp(0, most) * scales + offsets

    return fixed
