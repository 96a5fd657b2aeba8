"""Low-rank adapters in PyTorch: each row of a step gets its own sequence's, in one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pentad.errors import Incompatible
from pentad.execution.adapters import Adapter, placed_up, unadaptable
from pentad.execution.batch import RaggedBatch
from pentad.execution.layers import Activation
from pentad.execution.spec import Attention, ModelSpec
from pentad.execution.torch.feed_forward import DenseWeights
from pentad.execution.torch.linear import Linear, activate
from pentad.execution.torch.loading import AttentionWeights, LayerWeights, Weights

Pair = tuple[torch.Tensor, torch.Tensor]
"""Transposed for rows: [in, r] and [r, out]."""
Part = tuple[str, int, int]
"""Canonical tensor, and where its rows lie in a matrix that may hold several."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """One adapter in the present step, and the rows that have it."""

    pairs: Mapping[str, Pair]
    rows: torch.Tensor


class TorchAdapters:
    """The adapters of one runner (execution.adapters.Adapters), and who has which in the present step.

    Args:
        spec: of the base.
        dtype: that rows are computed in.
        device: where.

    Raises:
        Incompatible: a model whose layers cannot have adapters.
    """

    def __init__(self, spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> None:
        if (reason := unadaptable(spec)) is not None:
            raise Incompatible(
                f"model {spec.name!r} takes no adapters: {reason}", hint="take it out of engine.adapters"
            )
        self._spec = spec
        self._dtype = dtype
        self._device = device
        self._known: dict[str, Mapping[str, Pair]] = {}
        self.turns: Sequence[_Turn] = ()
        """Of the present step; empty where no row has an adapter."""

    def keys(self) -> Collection[str]:
        """See Adapters."""
        return self._known.keys()

    def put(self, adapter: Adapter) -> None:
        """See Adapters."""
        made: dict[str, Pair] = {}
        for name, pair in adapter.pairs.items():
            up = torch.from_numpy(placed_up(adapter, name, self._spec))
            made[name] = (self._there(torch.from_numpy(pair.down).t()), self._there(up.t()))
        self._known = {**self._known, adapter.key: made}

    def drop(self, key: str) -> None:
        """See Adapters."""
        self._known = {name: pairs for name, pairs in self._known.items() if name != key}

    def begin(self, batch: RaggedBatch) -> None:
        """Notes which rows of the step that comes next have which adapter."""
        self.turns = ()
        if batch.adapters is None:
            return
        of_rows = np.repeat(np.arange(len(batch.adapters)), np.diff(batch.starts))
        turns = []
        for key in dict.fromkeys(key for key in batch.adapters if key):
            mine = [s for s, own in enumerate(batch.adapters) if own == key]
            rows = torch.from_numpy(np.flatnonzero(np.isin(of_rows, mine))).to(self._device)
            turns.append(_Turn(self._known[key], rows))
        self.turns = turns

    def _there(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self._device, self._dtype).contiguous()


class Adapted:
    """A matrix to which adapters add, for the rows that have one; the plain one where none has."""

    def __init__(self, inner: Linear, parts: Sequence[Part], adapters: TorchAdapters) -> None:
        self.nbytes = inner.nbytes
        self._inner = inner
        self._parts = parts
        self._adapters = adapters

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = self._inner(x)
        for turn in self._adapters.turns:
            for name, start, end in self._parts:
                if (pair := turn.pairs.get(name)) is not None:
                    down, up = pair
                    y[:, start:end].index_add_(0, turn.rows, x[turn.rows] @ down @ up)
        return y

    def activated(self, x: torch.Tensor, activation: Activation) -> torch.Tensor:
        """activation(y)"""
        if not self._adapters.turns:
            return self._inner.activated(x, activation)
        return activate(self(x), activation)

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """y * factor"""
        return self(x) * factor if self._adapters.turns else self._inner.times(x, factor)

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        """y + term"""
        return self(x) + term if self._adapters.turns else self._inner.plus(x, term)


def adapted(weights: Weights, spec: ModelSpec, adapters: TorchAdapters) -> Weights:
    """The same weights, with every matrix of the layers open to adapters. Nothing is copied."""
    layers = tuple(_layer(i, layer, spec, adapters) for i, layer in enumerate(weights.layers))
    return dataclasses.replace(weights, layers=layers)


def _layer(index: int, layer: LayerWeights, spec: ModelSpec, adapters: TorchAdapters) -> LayerWeights:
    mixer, feed = layer.mixer, layer.feed_forward
    record = spec.blocks[index].mixer
    assert isinstance(mixer, AttentionWeights)
    assert isinstance(feed, DenseWeights)
    assert isinstance(record, Attention)
    queries, others = record.heads * record.head_dim, record.kv_heads * record.head_dim
    at = f"layers.{index}."

    def whole(name: str, inner: Linear, rows: int) -> Linear:
        return Adapted(inner, ((at + name, 0, rows),), adapters)

    parts = (
        (at + "q", 0, queries),
        (at + "k", queries, queries + others),
        (at + "v", queries + others, queries + 2 * others),
    )
    inner = feed.record.width
    return dataclasses.replace(
        layer,
        mixer=dataclasses.replace(
            mixer, qkv=Adapted(mixer.qkv, parts, adapters), o=whole("o", mixer.o, spec.width)
        ),
        feed_forward=dataclasses.replace(
            feed,
            gate=None if feed.gate is None else whole("gate", feed.gate, inner),
            up=whole("up", feed.up, inner),
            down=whole("down", feed.down, spec.width),
        ),
    )
