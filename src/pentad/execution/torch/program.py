"""The one transformer program: a ModelSpec read as data over rows of tokens.

Rows are the N tokens of a step, of however many sequences; only attention knows to which sequence
a row belongs, so it is an argument. The same program runs decoders over the paged cache and
encoders over whole texts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.spec import Learned, ModelSpec, Rope
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
        rope = spec.positions if isinstance(spec.positions, Rope) else None
        self._rotation = Rotation(rope, weights.embed.dtype, weights.embed.device) if rope else None
        self._turned = spec.heads + spec.kv_heads

    def hidden(
        self, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend, inputs: Inputs | None = None
    ) -> torch.Tensor:
        """Final hidden states [N, E] of token ids [N] at positions [N]."""
        x = self.embedded(tokens, positions, inputs)
        tables = self.tables(positions)
        for i, layer in enumerate(self.weights.layers):
            x = self.block(i, layer, x, tables, attend)
        return x if self.weights.final_norm is None else self._normed(x, self.weights.final_norm)

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
        if self.spec.norm.placement == "pre":
            return self._pre_norm_block(i, layer, x, tables, attend)
        return self._post_norm_block(i, layer, x, tables, attend)

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
            assert isinstance(self.spec.positions, Learned)
            x = x + F.embedding(positions + self.spec.positions.offset, weights.positions)
        if weights.token_types is not None:
            x = x + weights.token_types[0]
        return x if weights.embed_norm is None else self._normed(x, weights.embed_norm)

    def _pre_norm_block(
        self, i: int, layer: LayerWeights, x: torch.Tensor, tables: Tables | None, attend: Attend
    ) -> torch.Tensor:
        normed = self._normed(x, layer.attn_norm)
        context = attend(i, self._heads(layer, normed, tables))
        x = layer.o.plus(context, x)
        if layer.ffn_norm is not None:  # a parallel block feeds both halves the same norm
            normed = self._normed(x, layer.ffn_norm)
        return layer.down.plus(self._inner(layer, normed), x)

    def _post_norm_block(
        self, i: int, layer: LayerWeights, x: torch.Tensor, tables: Tables | None, attend: Attend
    ) -> torch.Tensor:
        context = attend(i, self._heads(layer, x, tables))
        x = self._normed(layer.o.plus(context, x), layer.attn_norm)
        x = layer.down.plus(self._inner(layer, x), x)
        return x if layer.ffn_norm is None else self._normed(x, layer.ffn_norm)

    def _heads(self, layer: LayerWeights, x: torch.Tensor, tables: Tables | None) -> torch.Tensor:
        """Queries, keys and values [N, H + 2K, D], normed and turned as the spec says."""
        spec = self.spec
        heads = layer.qkv(x).view(len(x), spec.heads + 2 * spec.kv_heads, spec.head_dim)
        if layer.q_norm is not None and layer.k_norm is not None:
            queries, keys = heads[:, : spec.heads], heads[:, spec.heads : self._turned]
            queries.copy_(F.rms_norm(queries, (spec.head_dim,), layer.q_norm, spec.norm.eps))
            keys.copy_(F.rms_norm(keys, (spec.head_dim,), layer.k_norm, spec.norm.eps))
        if self._rotation is not None and tables is not None:
            self._rotation.turn(heads[:, : self._turned], tables)
        return heads

    def _inner(self, layer: LayerWeights, x: torch.Tensor) -> torch.Tensor:
        """The feed-forward's inner activations [N, F]."""
        if layer.gate is None:
            return layer.up.activated(x, self.spec.activation)
        return layer.up.times(x, layer.gate.activated(x, self.spec.activation))

    def _normed(self, x: torch.Tensor, norm: NormWeights) -> torch.Tensor:
        if norm.shift is None:
            return F.rms_norm(x, (self.spec.width,), norm.scale, self.spec.norm.eps)
        return F.layer_norm(x, (self.spec.width,), norm.scale, norm.shift, self.spec.norm.eps)
