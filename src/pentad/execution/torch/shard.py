"""One rank's part of the transformer program: sums with the other ranks of its stage where parts meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.layers import Activation, Experts
from pentad.execution.quant import dequantize
from pentad.execution.ranks.shards import ROUTER, HeldSource, Shard, ShardSource
from pentad.execution.torch.feed_forward import DenseWeights, ExpertWeights
from pentad.execution.torch.linear import Linear, activate
from pentad.execution.torch.loading import AttentionWeights, LayerWeights, WeightLoader, Weights
from pentad.execution.torch.program import Program

Meet = Callable[[torch.Tensor, str], torch.Tensor]
"""The sum of a tensor [N, E] over the ranks of the stage, and what it is for."""
Exchange = Callable[["RankExperts", torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""What all ranks' experts give [N, E] for hidden states [N, E] that chose [N, k] with weights [N, k]."""


class Met:
    """A matrix whose columns are shared: what it gives is summed over ranks."""

    def __init__(self, inner: Linear, meet: Meet, what: str) -> None:
        self._inner = inner
        self._meet = meet
        self._what = what
        self.nbytes = inner.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._meet(self._inner(x), self._what)

    def activated(self, x: torch.Tensor, activation: Activation) -> torch.Tensor:
        return activate(self(x), activation)

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return self(x) * factor

    def plus(self, x: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
        return self(x) + term


@dataclass(frozen=True, slots=True, kw_only=True)
class RankExperts(ExpertWeights):
    """Some of a layer's experts, with the router for all of them."""

    own: range
    """Which they are."""
    exchange: Exchange

    def _routed(self, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return self.exchange(self, x, chosen, weights)

    def given(self, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """What the rank's own experts add for rows [N, E] that chose [N, k] with weights [N, k]."""
        total = torch.zeros(x.shape, dtype=torch.float32)
        for expert, number in zip(self.experts, self.own, strict=True):
            rows, places = (chosen == number).nonzero(as_tuple=True)
            if not len(rows):
                continue
            factors = weights[rows, places][:, None]
            if self.record.weigh_inputs:
                total = total.index_add(0, rows, expert(x[rows] * factors.to(x.dtype)).float())
            else:
                total = total.index_add(0, rows, expert(x[rows]).float() * factors)
        return total


class ShardProgram(Program):
    """The layers of one rank. Rows of the embedding table that others have come from them."""

    def __init__(self, shard: Shard, weights: Weights, meet: Meet) -> None:
        super().__init__(shard.spec, weights)
        self._shard = shard
        self._meet = meet

    def token_rows(self, tokens: torch.Tensor) -> torch.Tensor:
        """See Program; the vocabulary is shared as the heads are (Megatron-LM, section 3)."""
        if self._shard.parts == 1:
            return super().token_rows(tokens)
        own = self._shard.vocabulary
        local = tokens.long() - own.start
        mine = (local >= 0) & (local < len(own))
        rows = F.embedding(local.clamp(0, len(own) - 1), self.weights.embed)
        return self._meet(rows * mine[:, None], "embedding")


def load_shard(
    shard: Shard,
    source: ShardSource | HeldSource,
    meet: Meet,
    exchange: Exchange,
    dtype: torch.dtype,
    device: torch.device,
) -> ShardProgram:
    """The rank's program with its weights. Raises BadModelFile for weights that do not fit."""
    loaded = WeightLoader(shard.spec, source, dtype=dtype, device=device).load()
    if shard.parts > 1:
        layers = tuple(_met(shard, source, i, layer, meet, exchange) for i, layer in enumerate(loaded.layers))
        loaded = replace(loaded, layers=layers)
    return ShardProgram(shard, loaded, meet)


def _met(
    shard: Shard,
    source: ShardSource | HeldSource,
    index: int,
    layer: LayerWeights,
    meet: Meet,
    exchange: Exchange,
) -> LayerWeights:
    """A layer whose last matrices meet those of the other ranks."""
    mixer, inner = layer.mixer, layer.feed_forward
    if isinstance(mixer, AttentionWeights):
        mixer = replace(mixer, o=Met(mixer.o, meet, "attention"))
    if isinstance(inner, DenseWeights):
        return replace(layer, mixer=mixer, feed_forward=replace(inner, down=Met(inner.down, meet, "ffn")))
    if not isinstance(inner, ExpertWeights):
        return replace(layer, mixer=mixer)
    record = shard.whole.blocks[shard.stage.first + index].feed_forward
    assert isinstance(record, Experts)

    def whole(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(dequantize(source.tensor(f"layers.{index}.{name}").held())))

    shared = inner.shared
    experts = RankExperts(
        record=record,
        router=whole(ROUTER),
        router_bias=None if record.router_bias is None else whole(ROUTER + ".bias"),
        experts=inner.experts,
        shared=None if shared is None else replace(shared, down=Met(shared.down, meet, "ffn")),
        shared_gate=inner.shared_gate,
        own=shard.experts(record),
        exchange=exchange,
    )
    return replace(layer, mixer=mixer, feed_forward=experts)
