"""The one transformer program: a ModelSpec read as data over rows of tokens.

Rows are the N tokens of a step, of however many sequences; only attention knows to which sequence
a row belongs, so it is an argument. The same program runs decoders over the paged cache and
encoders over whole texts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.layers import FeedForward
from pentad.execution.spec import Block, ModelSpec
from pentad.execution.torch.loading import LayerWeights, NormWeights, Weights
from pentad.execution.torch.rope import Rotation

Attend = Callable[[int, torch.Tensor], torch.Tensor]
"""Layer and its heads [N, H + 2K, D] (queries, keys, values) to context [N, H D]."""

Inputs = tuple[torch.Tensor, torch.Tensor]
"""Rows [n, E] in the place of the embedding table's, and which of the N tokens take them [n]."""
Tables = tuple[torch.Tensor, torch.Tensor]


class Program:
    """Token ids in, hidden states and logits out. Holds weights, never state of a sequence."""

    def __init__(self, spec: ModelSpec, weights: Weights) -> None:
        self.spec = spec
        self.weights = weights
        rope = spec.rope
        self._rotation = Rotation(rope, weights.embed.dtype, weights.embed.device) if rope else None
        self._heads, self._kv_heads, self._head_dim = spec.heads, spec.kv_heads, spec.head_dim
        self._turned = spec.heads + spec.kv_heads

    def hidden(
        self, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend, inputs: Inputs | None = None
    ) -> torch.Tensor:
        """Final hidden states [N, E] of token ids [N] at positions [N]."""
        x = self.embedded(tokens, positions, inputs)
        tables = self.tables(positions)
        for i, layer in enumerate(self.weights.layers):
            x = self.block(i, layer, x, tables, attend)
        return x if self.weights.final_norm is None else normed(x, self.weights.final_norm)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [R, V] in the compute precision of hidden states [R, E]."""
        if self.weights.head is not None:
            return self.weights.head(hidden)
        if len(hidden) == 1:  # a matrix-vector product reads the table at full bandwidth
            return torch.mv(self.weights.embed, hidden[0]).unsqueeze(0)
        return F.linear(hidden, self.weights.embed)

    def tables(self, positions: torch.Tensor) -> Tables | None:
        """The rotations at positions [N]; None where positions do not turn heads."""
        return self._rotation.tables(positions) if self._rotation else None

    def block(
        self, i: int, layer: LayerWeights, x: torch.Tensor, tables: Tables | None, attend: Attend
    ) -> torch.Tensor:
        """Layer i over hidden states [N, E]."""
        record = self.spec.blocks[i]
        if record.placement == "pre":
            return self._pre_norm_block(i, record, layer, x, tables, attend)
        return self._post_norm_block(i, record, layer, x, tables, attend)

    def embedded(
        self, tokens: torch.Tensor, positions: torch.Tensor, inputs: Inputs | None = None
    ) -> torch.Tensor:
        """What enters the first layer: [N, E]."""
        weights = self.weights
        x = F.embedding(tokens, weights.embed)
        if inputs is not None:
            rows, takers = inputs
            x[takers] = rows.to(x.dtype)
        if weights.positions is not None:
            assert self.spec.learned is not None
            x = x + F.embedding(positions + self.spec.learned.offset, weights.positions)
        if weights.token_types is not None:
            x = x + weights.token_types[0]
        return x if weights.embed_norm is None else normed(x, weights.embed_norm)

    def _pre_norm_block(
        self,
        i: int,
        record: Block,
        layer: LayerWeights,
        x: torch.Tensor,
        tables: Tables | None,
        attend: Attend,
    ) -> torch.Tensor:
        read = normed(x, layer.attn_norm)
        context = attend(i, self._qkv(record, layer, read, tables))
        x = layer.o.plus(context, x)
        if layer.ffn_norm is not None:  # a parallel block feeds both halves the same norm
            read = normed(x, layer.ffn_norm)
        return layer.down.plus(self._inner(record, layer, read), x)

    def _post_norm_block(
        self,
        i: int,
        record: Block,
        layer: LayerWeights,
        x: torch.Tensor,
        tables: Tables | None,
        attend: Attend,
    ) -> torch.Tensor:
        context = attend(i, self._qkv(record, layer, x, tables))
        x = normed(layer.o.plus(context, x), layer.attn_norm)
        x = layer.down.plus(self._inner(record, layer, x), x)
        return x if layer.ffn_norm is None else normed(x, layer.ffn_norm)

    def _qkv(
        self, record: Block, layer: LayerWeights, x: torch.Tensor, tables: Tables | None
    ) -> torch.Tensor:
        """Queries, keys and values [N, H + 2K, D], normed and turned as the record says."""
        heads = layer.qkv(x).view(len(x), self._turned + self._kv_heads, self._head_dim)
        if layer.q_norm is not None and layer.k_norm is not None:
            queries, keys = heads[:, : self._heads], heads[:, self._heads : self._turned]
            queries.copy_(F.rms_norm(queries, (self._head_dim,), layer.q_norm, record.norm.eps))
            keys.copy_(F.rms_norm(keys, (self._head_dim,), layer.k_norm, record.norm.eps))
        if self._rotation is not None and tables is not None:
            self._rotation.turn(heads[:, : self._turned], tables)
        return heads

    def _inner(self, record: Block, layer: LayerWeights, x: torch.Tensor) -> torch.Tensor:
        """The feed-forward's inner activations [N, F]."""
        inner = record.feed_forward
        assert isinstance(inner, FeedForward)
        if layer.gate is None:
            return layer.up.activated(x, inner.activation)
        return layer.up.times(x, layer.gate.activated(x, inner.activation))


def normed(x: torch.Tensor, norm: NormWeights) -> torch.Tensor:
    """Rows [N, E], normalised."""
    size = x.shape[-1:]
    if norm.shift is None:
        return F.rms_norm(x, size, norm.scale, norm.eps)
    return F.layer_norm(x, size, norm.scale, norm.shift, norm.eps)
