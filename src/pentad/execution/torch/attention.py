"""Attention over KV blocks, and over whole texts.

The query heads of one KV head are that head's query rows, so that decoding reads each key once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.batch import RaggedBatch
from pentad.execution.positions import Sight
from pentad.execution.spec import Attention, ModelSpec
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.cross import SourceStep
from pentad.execution.torch.decode import DecodeKernel
from pentad.execution.torch.groups import Group, groups_of
from pentad.execution.torch.latent import LatentHeads, over_texts
from pentad.execution.torch.scores import ScoreRule
from pentad.execution.torch.states import StateStep, StateStore

Rules: TypeAlias = tuple[ScoreRule | None, ...]


class PagedAttention:
    """Causal attention of one step over the blocks that its sequences hold.

    Built once per step, called once per layer. Keys and values of the step are written before
    they are read, so a token sees itself. With a `kernel` it attends for the sequences with one new
    token, all at once.
    """

    def __init__(
        self,
        spec: ModelSpec,
        cache: KVCache,
        batch: RaggedBatch,
        kernel: DecodeKernel | None = None,
        rules: Rules | None = None,
        store: StateStore | None = None,
    ) -> None:
        """`rules` has the score rule of each layer (scores.py); None where all are plain. `store` holds the
        states of layers that have one."""
        self._spec = spec
        self._cache = cache
        self._kernel = kernel
        self._rules = rules
        self._slots = torch.from_numpy(batch.slots).to(cache.device, torch.int64)
        self._tokens = len(batch.token_ids)
        self._windows = spec.windows
        self._sights = sights(spec)
        self._batch = batch
        self._states = StateStep(store, batch, cache.device) if store else None
        self._groups: dict[Sight, tuple[Group, ...]] = {}

    def __call__(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        """Context [N, H D] of heads [N, H + 2K, D]."""
        mixer = attention(self._spec, layer)
        self._cache.write(layer, self._slots, heads[:, mixer.heads :])
        groups = self._grouped(self._sights[layer])
        if len(groups) == 1:
            return self._attend(groups[0], layer, mixer, heads)
        context = heads.new_empty(self._tokens, mixer.heads * mixer.head_dim)
        for group in groups:
            context[group.rows] = self._attend(group, layer, mixer, heads)
        return context

    @property
    def states(self) -> StateStep:
        """The states that this step's tokens advance."""
        assert self._states is not None, "no layer has a state"
        return self._states

    @cached_property
    def sources(self) -> SourceStep:
        """What this step's tokens read beside their own text."""
        assert self._batch.sources is not None, "no layer reads an encoder"
        return SourceStep(self._batch, self._batch.sources, self._cache)

    def latent(self, layer: int, heads: LatentHeads) -> torch.Tensor:
        """Context [N, H D] of latent attention (latent.py)."""
        self._cache.write(layer, self._slots, heads.rows)
        record = heads.record
        context = heads.queries.new_empty(self._tokens, record.heads * record.value_dim)
        for group in self._grouped(Sight()):
            keys, _ = self._cache.read(layer, group.blocks, group.sequences, group.length)
            causal = not group.single
            context[group.rows] = heads.attend(group.rows, keys[:, 0], group.mask, causal=causal)
        return context

    def _grouped(self, sight: Sight) -> tuple[Group, ...]:
        """The groups of layers that see so far, made when the first such layer comes."""
        if sight not in self._groups:
            fused = self._kernel is not None
            self._groups[sight] = tuple(groups_of(self._batch, self._cache, sight, fused=fused))
        return self._groups[sight]

    def _attend(self, group: Group, layer: int, mixer: Attention, heads: torch.Tensor) -> torch.Tensor:
        queries = heads[group.rows, : mixer.heads]
        if group.decode is not None and self._kernel is not None:
            window = self._windows[layer]
            return self._kernel(queries, self._cache.layer(layer), group.decode, window)
        keys, values = self._cache.read(layer, group.blocks, group.sequences, group.length)
        if self._rules is not None and (rule := self._rules[layer]) is not None:
            return _ruled(rule, group, queries, keys, values)
        if group.single:
            grouped = queries.view(group.sequences, mixer.kv_heads, -1, mixer.head_dim)  # [B, K, H / K, D]
            return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=group.mask).flatten(1)
        context = F.scaled_dot_product_attention(
            queries.transpose(0, 1).unsqueeze(0),  # [1, H, T, D]
            keys,
            values,
            attn_mask=group.mask,
            is_causal=group.mask is None,
            enable_gqa=mixer.kv_heads != mixer.heads,
        )
        return context[0].transpose(0, 1).flatten(1)


def _ruled(
    rule: ScoreRule, group: Group, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Context [rows of the group, H D]: queries [rows, H, D] are one of each text, or those of one text."""
    slots = torch.arange(group.length, device=queries.device)
    at, first = (torch.from_numpy(each).to(queries.device)[:, None] for each in (group.at, group.first))
    distances = at - first - slots  # [B or T, S]
    if group.single:
        context = rule.attend(queries.unsqueeze(2), keys, values, at, distances[:, None], group.mask)
        return context.flatten(1)
    asked = queries.transpose(0, 1).unsqueeze(0)
    context = rule.attend(asked, keys, values, at.T, distances[None], group.mask)
    return context[0].transpose(0, 1).flatten(1)


class TextAttention:
    """Attention within whole texts that lie end to end, those of equal length next to each other.

    Bidirectional or causal, without padding and without a cache.
    """

    def __init__(self, spec: ModelSpec, lengths: Sequence[int], rules: Rules | None = None) -> None:
        self._spec = spec
        self._rules = rules
        self._sights = sights(spec)
        self._runs: list[tuple[int, int, int]] = []
        start = 0
        for length in lengths:
            if self._runs and self._runs[-1][2] == length:
                first, count, _ = self._runs[-1]
                self._runs[-1] = (first, count + 1, length)
            else:
                self._runs.append((start, 1, length))
            start += length
        self._tokens = start

    def __call__(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        """Context [N, H D] of heads [N, H + 2K, D]."""
        mixer = attention(self._spec, layer)
        parts = []
        for start, texts, length in self._runs:
            run = heads[start : start + texts * length].unflatten(0, (texts, length)).transpose(1, 2)
            queries, keys, values = run.split((mixer.heads, mixer.kv_heads, mixer.kv_heads), dim=1)
            mask = self._mask(layer, length, heads)
            if self._rules is not None and (rule := self._rules[layer]) is not None:
                at = torch.arange(length, device=heads.device)
                distances = (at[:, None] - at)[None]
                seen = torch.zeros_like(distances, dtype=torch.float32) if mask is None else mask
                context = rule.attend(queries, keys, values, at[None], distances, seen)
            else:
                context = F.scaled_dot_product_attention(
                    queries, keys, values, attn_mask=mask, enable_gqa=mixer.kv_heads != mixer.heads
                )
            parts.append(context.transpose(1, 2).reshape(texts * length, -1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def latent(self, layer: int, heads: LatentHeads) -> torch.Tensor:  # noqa: ARG002
        """Context [N, H D] of latent attention (latent.py)."""
        return over_texts(self._runs, heads, causal=self._spec.causal)

    def _mask(self, layer: int, length: int, like: torch.Tensor) -> torch.Tensor | None:
        sight = self._sights[layer]
        if not self._spec.causal and not sight.limited:
            return None
        at = torch.arange(length, device=like.device)
        distance = at[:, None] - at
        if self._spec.causal:
            hidden = distance < 0
        else:  # a window reaches as far to either side
            distance = distance.abs()
            hidden = torch.zeros_like(distance, dtype=torch.bool)
        if sight.window is not None:
            hidden = hidden | (distance >= sight.window)
        if sight.chunk is not None:
            hidden = hidden | (at[:, None] // sight.chunk != at // sight.chunk)
        return torch.zeros(length, length, dtype=like.dtype, device=like.device).masked_fill_(
            hidden, -torch.inf
        )


class PaddedAttention(TextAttention):
    """Attention within texts that lie in a rectangle [B, T], each followed by padding that none attends to.

    Bidirectional, without windows, rules and cache; what comes out at padding means nothing.
    """

    def __init__(self, spec: ModelSpec, lengths: Sequence[int], device: torch.device) -> None:
        width = max(lengths)
        super().__init__(spec, [width] * len(lengths))
        ends = torch.tensor(lengths, device=device)
        self._seen = (torch.arange(width, device=device) < ends[:, None])[:, None, None]  # [B, 1, 1, T]

    def _mask(self, layer: int, length: int, like: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return self._seen


def sights(spec: ModelSpec) -> tuple[Sight, ...]:
    """How far back each layer sees."""
    mixers = (block.mixer for block in spec.blocks)
    return tuple(mixer.sight if isinstance(mixer, Attention) else Sight() for mixer in mixers)


def attention(spec: ModelSpec, layer: int) -> Attention:
    """The layer's mixer, which is ordinary attention."""
    mixer = spec.blocks[layer].mixer
    assert isinstance(mixer, Attention)
    return mixer
