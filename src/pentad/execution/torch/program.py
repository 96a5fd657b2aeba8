"""The one transformer program: a ModelSpec read as data over rows of tokens.

Rows are the N tokens of a step, of however many sequences; only attention knows to which sequence
a row belongs, so it is an argument. The same program runs decoders over the paged cache and
encoders over whole texts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.spec import Attention, Block, ModelSpec
from pentad.execution.torch.attention import Rules
from pentad.execution.torch.cross import with_sources
from pentad.execution.torch.feed_forward import DenseWeights, ExpertWeights
from pentad.execution.torch.latent import LatentWeights, keeps_vectors
from pentad.execution.torch.loading import (
    AttentionWeights,
    LayerWeights,
    MixerWeights,
    NormWeights,
    Weights,
)
from pentad.execution.torch.recurrent import RecurrentWeights, ShortConvolutionWeights, with_states
from pentad.execution.torch.rope import Rotation, grown
from pentad.execution.torch.scores import RelativeBias, ScoreRule

Attend = Callable[[int, torch.Tensor], torch.Tensor]
"""Layer and its heads [N, H + 2K, D] (queries, keys, values) to context [N, H D]."""

Inputs = tuple[torch.Tensor, torch.Tensor]
"""Rows [n, E] in the place of the embedding table's, and which of the N tokens take them [n]."""
Tables = tuple[tuple[torch.Tensor, ...], ...]
"""Cosines and signed sines, of each kind of rotation; then factors of queries, of each way to grow; at last
the positions themselves."""


class Program:
    """Token ids in, hidden states and logits out. Holds weights, never state of a sequence."""

    def __init__(self, spec: ModelSpec, weights: Weights) -> None:
        self.spec = spec
        self.weights = weights
        mixers = [block.mixer for block in spec.blocks]
        ropes = [None if mixer is None else mixer.rotation for mixer in mixers]
        dtype, device = weights.embed.dtype, weights.embed.device
        kinds = {rope: Rotation(rope, dtype, device) for rope in dict.fromkeys(ropes) if rope is not None}
        self._rotations = tuple(kinds.values())
        order = list(kinds)
        self._turns = tuple(None if rope is None else order.index(rope) for rope in ropes)
        growths = [mixer.growth if isinstance(mixer, Attention) else None for mixer in mixers]
        self._growths = [growth for growth in dict.fromkeys(growths) if growth is not None]
        self._grown = tuple(
            None if growth is None else len(order) + self._growths.index(growth) for growth in growths
        )
        loaded = [layer.mixer for layer in weights.layers]
        owned = [w if isinstance(w, AttentionWeights) else None for w in loaded] or [None] * spec.layers
        table, buckets = weights.relative, spec.stack.relative
        relative = None if table is None or buckets is None else RelativeBias(record=buckets, table=table)
        rules = tuple(
            ScoreRule.of(m, w.sinks if w else None, device, relative, w.distances if w else None)
            if isinstance(m, Attention)
            else None
            for m, w in zip(mixers, owned, strict=True)
        )
        self.rules: Rules | None = rules if any(rules) else None
        """How layers weigh slots where the fused kernels don't compute it; None where all are plain."""

    def hidden(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        attend: Attend,
        inputs: Inputs | None = None,
        types: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Final hidden states [N, E] of token ids [N] at positions [N], of types [N] where there are any."""
        x = self.embedded(tokens, positions, inputs, types)
        tables = self.tables(positions)
        for i, layer in enumerate(self.weights.layers):
            x = self.block(i, layer, x, tables, attend)
        return x if self.weights.final_norm is None else normed(x, self.weights.final_norm)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [R, V] in the compute precision of hidden states [R, E]."""
        head = self.spec.head
        assert head is not None
        found = self._scores(hidden)
        if self.weights.tied_bias is not None:
            found = found + self.weights.tied_bias
        if head.scale != 1:
            found = found * head.scale
        return found if head.cap is None else head.cap * torch.tanh(found / head.cap)

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.weights.head is not None:
            return self.weights.head(hidden)
        if len(hidden) == 1:  # a matrix-vector product reads the table at full bandwidth
            return torch.mv(self.weights.embed, hidden[0]).unsqueeze(0)
        return F.linear(hidden, self.weights.embed)

    def tables(self, positions: torch.Tensor) -> Tables:
        """The rotations at positions [N], of each kind that layers have, and how queries grow there."""
        turns: Tables = tuple(rotation.tables(positions) for rotation in self._rotations)
        grows: Tables = tuple((grown(growth, positions),) for growth in self._growths)
        return (*turns, *grows, (positions,))

    def block(
        self, i: int, layer: LayerWeights, x: torch.Tensor, tables: Tables, attend: Attend
    ) -> torch.Tensor:
        """Layer i over hidden states [N, E]."""
        record = self.spec.blocks[i]
        if layer.entry_norm is not None:
            x = normed(x, layer.entry_norm)
        if record.placement in ("both", "output") or record.residual_scale != 1:
            return self._general_block(i, record, layer, x, tables, attend)
        if record.mixer is None or record.feed_forward is None or record.cross is not None:
            return self._general_block(i, record, layer, x, tables, attend)
        if record.parallel and not record.shared_norm:
            return self._general_block(i, record, layer, x, tables, attend)
        if record.placement == "pre":
            return self._pre_norm_block(i, record, layer, x, tables, attend)
        return self._post_norm_block(i, record, layer, x, tables, attend)

    def embedded(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        inputs: Inputs | None = None,
        types: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What enters the first layer: [N, E]."""
        weights = self.weights
        x = self.token_rows(tokens)
        if self.spec.embedding_scale != 1:  # rounded as the embeddings are
            x = x * torch.tensor(self.spec.embedding_scale, dtype=x.dtype, device=x.device)
        if inputs is not None:
            rows, takers = inputs
            x[takers] = rows.to(x.dtype)
        if weights.positions is not None:
            assert self.spec.learned is not None
            x = x + F.embedding(positions + self.spec.learned.offset, weights.positions)
        if weights.token_types is not None:
            x = x + (weights.token_types[0] if types is None else F.embedding(types, weights.token_types))
        return x if weights.embed_norm is None else normed(x, weights.embed_norm)

    def token_rows(self, tokens: torch.Tensor) -> torch.Tensor:
        """Rows [N, E] of the embedding table, as they are stored."""
        return F.embedding(tokens, self.weights.embed)

    def _pre_norm_block(
        self,
        i: int,
        record: Block,
        layer: LayerWeights,
        x: torch.Tensor,
        tables: Tables,
        attend: Attend,
    ) -> torch.Tensor:
        mixer, inner = both(layer)
        read = normed(x, layer.attn_norm) if record.mixer_norm else x
        x = mixer.o.plus(self._context(i, record, layer, read, tables, attend), x)
        if layer.ffn_norm is not None:  # a parallel block feeds both halves the same norm
            read = normed(x, layer.ffn_norm)
        return inner.plus(read, x)

    def _post_norm_block(
        self,
        i: int,
        record: Block,
        layer: LayerWeights,
        x: torch.Tensor,
        tables: Tables,
        attend: Attend,
    ) -> torch.Tensor:
        mixer, inner = both(layer)
        context = self._context(i, record, layer, x, tables, attend)
        x = normed(mixer.o.plus(context, x), layer.attn_norm)
        x = inner.plus(x, x)
        return x if layer.ffn_norm is None else normed(x, layer.ffn_norm)

    def _general_block(
        self,
        i: int,
        record: Block,
        layer: LayerWeights,
        x: torch.Tensor,
        tables: Tables,
        attend: Attend,
    ) -> torch.Tensor:
        """Any placement of norms, a scale of what is added, parts in parallel, one part alone."""
        before = record.placement in ("pre", "both")

        def added(x: torch.Tensor, part: torch.Tensor, given: NormWeights | None) -> torch.Tensor:
            part = part if given is None else normed(part, given)
            return x + (part if record.residual_scale == 1 else part * record.residual_scale)

        mixed = x
        if layer.mixer is not None:
            read = normed(x, layer.attn_norm) if before and record.mixer_norm else x
            context = self._context(i, record, layer, read, tables, attend)
            mixed = added(x, layer.mixer.o(context), layer.attn_out_norm)
            if record.placement == "post":
                mixed = normed(mixed, layer.attn_norm)
        if layer.cross is not None:
            read = normed(mixed, layer.cross_norm) if before else mixed
            part = layer.cross.given(read, i, with_sources(attend))
            mixed = added(mixed, part, layer.cross_out_norm)
            if record.placement == "post":
                mixed = normed(mixed, layer.cross_norm)
        if layer.feed_forward is None:
            return mixed
        if not record.parallel:
            x = mixed
        norm = layer.attn_norm if record.shared_norm else layer.ffn_norm
        read = normed(x, norm) if before else x
        fed = added(mixed, layer.feed_forward(read), layer.ffn_out_norm)
        return normed(fed, layer.ffn_norm) if record.placement == "post" else fed

    def _context(
        self, i: int, record: Block, layer: LayerWeights, x: torch.Tensor, tables: Tables, attend: Attend
    ) -> torch.Tensor:
        """What the mixer makes of hidden states [N, E], in front of its last matrix."""
        weights, mixer, turn = layer.mixer, record.mixer, self._turns[i]
        if isinstance(weights, LatentWeights):
            assert turn is not None
            return keeps_vectors(attend).latent(i, weights.heads(x, self._rotations[turn], tables[turn]))
        if isinstance(weights, RecurrentWeights | ShortConvolutionWeights):
            return weights.context(x, i, with_states(attend))
        assert isinstance(mixer, Attention)
        assert isinstance(weights, AttentionWeights)
        heads = self._qkv(mixer, weights, record.norm.eps, x, turn, tables)
        if (place := self._grown[i]) is not None:
            heads[:, : mixer.heads] *= tables[place][0].to(heads.dtype)
        context = attend(i, heads)
        return context if weights.gate is None else context * torch.sigmoid(weights.gate(x))

    def _qkv(
        self,
        mixer: Attention,
        weights: AttentionWeights,
        eps: float,
        x: torch.Tensor,
        turn: int | None,
        tables: Tables,
    ) -> torch.Tensor:
        """Queries, keys and values [N, H + 2K, D], normed and turned as the record says."""
        turned = mixer.heads + mixer.kv_heads
        heads = weights.qkv(x).view(len(x), turned + mixer.kv_heads, mixer.head_dim)
        if weights.position_queries is not None:
            asking = weights.qkv(F.embedding(tables[-1][0], weights.position_queries))
            heads[:, : mixer.heads] = asking.view(heads.shape)[:, : mixer.heads]
        if mixer.qkv_clip is not None:
            heads = heads.clamp_(-mixer.qkv_clip, mixer.qkv_clip)
        if not mixer.qk_norm_last:
            _norm_heads(heads, mixer, weights, eps)
        if turn is not None:
            self._rotations[turn].turn(heads[:, :turned], tables[turn])
        if mixer.qk_norm_last:
            _norm_heads(heads, mixer, weights, eps)
        return heads


def both(layer: LayerWeights) -> tuple[MixerWeights, DenseWeights | ExpertWeights]:
    """The parts of a layer that has both."""
    assert layer.mixer is not None
    assert layer.feed_forward is not None
    return layer.mixer, layer.feed_forward


def _norm_heads(heads: torch.Tensor, mixer: Attention, weights: AttentionWeights, eps: float) -> None:
    """Norms queries and keys of [N, H + 2K, D] in place, where the layer has scales for them."""
    if weights.q_norm is None or weights.k_norm is None:
        return
    queries, keys = heads[:, : mixer.heads], heads[:, mixer.heads : mixer.heads + mixer.kv_heads]
    for part, scale in ((queries, weights.q_norm), (keys, weights.k_norm)):
        size = len(scale) if mixer.qk_norm == "all" else mixer.head_dim
        rows = part.reshape(
            len(part), part.shape[1] * part.shape[2] // size, size
        )  # a head each, or all as one
        one, own = (scale, None) if len(scale) == size else (None, scale.view(-1, size))
        if mixer.qk_norm_kind == "rms":
            rows = F.rms_norm(rows, (size,), one, eps)
        else:
            rows = F.layer_norm(rows, (size,), one, None, eps)
        rows = rows if own is None else rows * own
        part.copy_(rows.view(part.shape))


def normed(x: torch.Tensor, norm: NormWeights | None) -> torch.Tensor:
    """Rows [N, E], normalised."""
    assert norm is not None
    size = x.shape[-1:]
    if norm.kind == "rms":
        return F.rms_norm(x, size, norm.scale, norm.eps)
    return F.layer_norm(x, size, norm.scale, norm.shift, norm.eps)
