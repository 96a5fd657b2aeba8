"""FLAP: columns whose activations hardly vary go, and a bias puts their mean in their place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pentad.execution.formats.base import Floats
from pentad.execution.layers import FeedForward
from pentad.execution.spec import Attention, ModelSpec
from pentad.execution.taps import Tap
from pentad.execution.weights import StoredTensor
from pentad.model.transforms.base import Unit, written
from pentad.model.transforms.structured import Kept, StructuredPruning, by_group, weight_norms


@dataclass(frozen=True, slots=True, kw_only=True)
class FLAP(StructuredPruning):
    """Removes the feed-forward columns that fluctuate least; biases make up for their mean.

    Exactness: lossy; the metric is perplexity. Cost: three passes of the calibration text through
    each layer.

    Source: An et al., "Fluctuation-based Adaptive Structured Pruning for Large Language Models", AAAI'24,
    section 3. Our difference: feed-forward columns go by their fluctuation, standardised over all layers;
    key/value heads are as many in every layer.
    """

    bias: bool = True
    """Whether biases are added that stand for the mean of what is gone."""

    name: ClassVar[str] = "flap"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
    standardised: ClassVar[bool] = True

    def target(self, spec: ModelSpec) -> ModelSpec:
        narrowed = StructuredPruning.target(self, spec)
        if not self.bias:
            return narrowed
        inside = any(
            _width(old) != _width(new) for old, new in zip(spec.blocks, narrowed.blocks, strict=True)
        )
        return narrowed.with_blocks(
            lambda block: replace(
                block,
                mixer=replace(block.mixer, out_bias=True, qkv_bias=True)
                if isinstance(block.mixer, Attention) and self.kv_heads
                else block.mixer,
                feed_forward=replace(block.feed_forward, bias=block.feed_forward.bias or inside)
                if isinstance(block.feed_forward, FeedForward)
                else block.feed_forward,
            )
        )

    def column_scores(self, unit: Unit) -> Floats:
        return self._fluctuation(unit, "down")

    def group_scores(self, unit: Unit) -> Floats:
        return by_group(unit, self._fluctuation(unit, "o"))

    def _fluctuation(self, unit: Unit, part: str) -> Floats:
        name = f"layers.{unit.layer}.{part}"
        tap = unit.taps[name]
        mean = _mean(tap)
        variance = np.maximum(tap.square_sum / np.float32(tap.rows) - np.square(mean), 0)
        found: Floats = variance * weight_norms(unit.values(name))
        return found

    def narrowed(self, matrix: Floats, kept: Kept, tap: Tap) -> tuple[Floats, Floats | None]:
        if not self.bias:
            return matrix[:, kept], None
        mean = _mean(tap)
        mean[kept] = 0
        return matrix[:, kept], matrix @ mean

    def rewrite(self, unit: Unit) -> dict[str, StoredTensor]:
        found = dict(StructuredPruning.rewrite(self, unit))
        if unit.layer is None:
            return found
        wanted = self.target(unit.spec).blocks[unit.layer].shapes(unit.spec.width)
        present = set(unit.names()) | found.keys()
        for part, shape in wanted.items():  # a layer's parts have biases all or none
            name = f"layers.{unit.layer}.{part}"
            if part.endswith(".bias") and name not in present:
                found[name] = written(name, np.zeros(shape, np.float32), "F32")
        return found


def _mean(tap: Tap) -> Floats:
    assert tap.signed_sum is not None, "its need is declared"
    found: Floats = tap.signed_sum / np.float32(tap.rows)
    return found


def _width(block: object) -> int:
    inner = getattr(block, "feed_forward", None)
    return inner.width if isinstance(inner, FeedForward) else 0
