"""Attention over KV blocks, and over whole texts.

Sequences with one new token form batches; the query heads of one KV head are then that head's
query rows, which reads each key once. Sequences with more tokens run one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.batch import Int32, RaggedBatch
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.cache import KVCache, Rows
from pentad.execution.torch.decode import DecodeKernel, DecodeRows, table_columns
from pentad.execution.torch.scores import ScoreRule
from pentad.execution.torch.trees import chunk_lengths, see_branches, tree_slots

_PADDING_RATIO = 2
_PADDING_FLOOR_TOKENS = 64
"""A decode batch is split where padding would more than double a context longer than the floor."""

Indices = npt.NDArray[np.integer]
Rules: TypeAlias = tuple[ScoreRule | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Sequences that one attention call serves: B of them, each reading S slots."""

    rows: Rows
    """Which of the step's N tokens these are."""
    sequences: int
    blocks: Rows
    length: int
    single: bool
    """One new token per sequence."""
    mask: torch.Tensor | None = None
    """Added to the scores; None where every slot is seen, or the plain causal triangle."""
    at: Indices
    """Slot of each query: [B], or [T] of a chunk."""
    first: Indices
    """The first slot that is read: [B], or [1] of a chunk."""
    decode: DecodeRows | None = None
    """For the fused kernel, which then stands in for `blocks`, `length` and `mask`."""


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
    ) -> None:
        """`rules` has the score rule of each layer (scores.py); None where all are plain."""
        self._spec = spec
        self._cache = cache
        self._kernel = kernel
        self._rules = rules
        self._slots = torch.from_numpy(batch.slots).to(cache.device, torch.int64)
        self._tokens = len(batch.token_ids)
        self._windows = spec.windows
        fused = kernel is not None
        self._groups = {w: tuple(_groups(batch, cache, w, fused=fused)) for w in set(self._windows)}

    def __call__(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        """Context [N, H D] of heads [N, H + 2K, D]."""
        self._cache.write(layer, self._slots, heads[:, self._spec.heads :])
        groups = self._groups[self._windows[layer]]
        if len(groups) == 1:
            return self._attend(groups[0], layer, heads)
        context = heads.new_empty(self._tokens, self._spec.heads * self._spec.head_dim)
        for group in groups:
            context[group.rows] = self._attend(group, layer, heads)
        return context

    def _attend(self, group: _Group, layer: int, heads: torch.Tensor) -> torch.Tensor:
        spec = self._spec
        queries = heads[group.rows, : spec.heads]
        if group.decode is not None and self._kernel is not None:
            window = self._windows[layer]
            return self._kernel(queries, self._cache.layer(layer), group.decode, window)
        keys, values = self._cache.read(layer, group.blocks, group.sequences, group.length)
        if self._rules is not None and (rule := self._rules[layer]) is not None:
            return _ruled(rule, group, queries, keys, values)
        if group.single:
            grouped = queries.view(group.sequences, spec.kv_heads, -1, spec.head_dim)  # [B, K, H / K, D]
            return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=group.mask).flatten(1)
        context = F.scaled_dot_product_attention(
            queries.transpose(0, 1).unsqueeze(0),  # [1, H, T, D]
            keys,
            values,
            attn_mask=group.mask,
            is_causal=group.mask is None,
            enable_gqa=spec.kv_heads != spec.heads,
        )
        return context[0].transpose(0, 1).flatten(1)


def _ruled(
    rule: ScoreRule, group: _Group, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Context [rows of the group, H D]: queries [rows, H, D] are one of each text, or those of one text."""
    slots = torch.arange(group.length, device=queries.device)
    at, first = (torch.from_numpy(each).to(queries.device)[:, None] for each in (group.at, group.first))
    distances = at - first - slots  # [B or T, S]
    if group.single:
        context = rule.attend(queries.unsqueeze(2), keys, values, distances[:, None], group.mask)
        return context.flatten(1)
    context = rule.attend(queries.transpose(0, 1).unsqueeze(0), keys, values, distances[None], group.mask)
    return context[0].transpose(0, 1).flatten(1)


def _groups(batch: RaggedBatch, cache: KVCache, window: int | None, *, fused: bool) -> Iterator[_Group]:
    """The step's sequences in the groups that are computed together."""
    counts = chunk_lengths(batch)
    singles = np.flatnonzero(counts == 1)
    if fused and len(singles):
        yield _fused_group(batch, cache, singles)
    for members in () if fused else _similar(singles, batch.context_lens, window):
        yield _single_group(batch, cache, window, members)
    for i in np.flatnonzero(counts > 1):
        yield _chunk_group(batch, cache, window, int(i))


def _similar(sequences: Indices, context_lens: Int32, window: int | None) -> Iterator[Indices]:
    """Splits sequences so that padding to the longest of a part at most doubles a long context."""
    if not len(sequences):
        return
    lengths = context_lens[sequences]
    if window is not None:
        lengths = np.minimum(lengths, window)
    if lengths.max() <= max(_PADDING_RATIO * lengths.min(), _PADDING_FLOOR_TOKENS):
        yield sequences
        return
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        longest = lengths[order[0]]
        fits = lengths[order] * _PADDING_RATIO >= longest
        if longest <= _PADDING_FLOOR_TOKENS:
            fits[:] = True
        yield sequences[order[fits]]
        order = order[~fits]


def _fused_group(batch: RaggedBatch, cache: KVCache, members: Indices) -> _Group:
    """Sequences with one new token, for a kernel that reads their blocks in place."""
    lens = batch.context_lens[members]
    tables = table_columns(batch.block_tables[members], lens, cache.block_size)
    return _Group(
        rows=_member_rows(batch, cache, members),
        sequences=len(members),
        at=lens,
        first=lens,
        blocks=slice(0),
        length=0,
        single=True,
        decode=DecodeRows(
            tables=torch.from_numpy(tables).to(cache.device), lens=torch.from_numpy(lens).to(cache.device)
        ),
    )


def _member_rows(batch: RaggedBatch, cache: KVCache, members: Indices) -> Rows:
    """The rows of sequences with one new token; all of them as a slice, which copies nothing."""
    if len(members) == len(batch.token_ids):
        return slice(None)
    return torch.from_numpy(batch.starts[members].astype(np.int64)).to(cache.device)


def _single_group(batch: RaggedBatch, cache: KVCache, window: int | None, members: Indices) -> _Group:
    """Sequences with one new token: padded to the longest, what is not theirs masked."""
    size = cache.block_size
    lens = batch.context_lens[members]
    first_seen = np.zeros_like(lens) if window is None else np.maximum(lens - window, 0)
    first_block = first_seen // size
    length = int((lens - first_block * size).max())
    columns = first_block[:, None] + np.arange(-(-length // size))
    tables = batch.block_tables[members]
    blocks = np.take_along_axis(tables, np.minimum(columns, tables.shape[1] - 1), axis=1)
    mask = None
    if len(members) > 1 or first_seen.any():
        slots = first_block[:, None] * size + np.arange(length)
        seen = (slots >= first_seen[:, None]) & (slots < lens[:, None])
        mask = None if seen.all() else _additive(seen, cache)[:, None, None, :]
    return _Group(
        rows=_member_rows(batch, cache, members),
        sequences=len(members),
        # Padded with a block of its own: a number that is not one would show through any mask.
        blocks=_block_rows(np.where(blocks < 0, blocks[:, :1], blocks).reshape(-1), cache.device),
        length=length,
        at=lens - 1,
        first=first_block * size,
        single=True,
        mask=mask,
    )


def _chunk_group(batch: RaggedBatch, cache: KVCache, window: int | None, i: int) -> _Group:
    """One sequence with several new tokens, which see what came before and each other's past."""
    size = cache.block_size
    start, stop = int(batch.starts[i]), int(batch.starts[i + 1])
    end = int(batch.context_lens[i])
    positions = batch.positions[start:stop]
    first_block = 0 if window is None else max(0, int(positions.min()) + 1 - window) // size
    slots = np.arange(first_block * size, end)
    mask = None
    if tree_slots(batch, i) or positions[0] > 0 or (window is not None and window < end):
        seen = slots <= np.arange(end - (stop - start), end)[:, None]
        if window is not None:
            seen &= slots > positions[:, None] - window
        see_branches(seen, batch, i)
        mask = _additive(seen, cache)
    blocks = batch.block_tables[i, first_block : -(-end // size)]
    return _Group(
        rows=slice(start, stop),
        sequences=1,
        blocks=_block_rows(blocks, cache.device),
        length=len(slots),
        at=positions,
        first=slots[:1],
        single=False,
        mask=mask,
    )


def _additive(seen: npt.NDArray[np.bool_], cache: KVCache) -> torch.Tensor:
    """0 where seen, minus infinity elsewhere."""
    hidden = torch.from_numpy(~seen).to(cache.device)
    return torch.zeros(seen.shape, dtype=cache.dtype, device=cache.device).masked_fill_(hidden, -torch.inf)


def _block_rows(blocks: Int32, device: torch.device) -> Rows:
    """Consecutive blocks are a view of the cache; others are gathered."""
    if np.array_equal(blocks, np.arange(blocks[0], blocks[0] + len(blocks))):
        return slice(int(blocks[0]), int(blocks[0]) + len(blocks))
    return torch.from_numpy(np.ascontiguousarray(blocks)).to(device)


class TextAttention:
    """Attention within whole texts that lie end to end, those of equal length next to each other.

    Bidirectional or causal, without padding and without a cache.
    """

    def __init__(self, spec: ModelSpec, lengths: Sequence[int], rules: Rules | None = None) -> None:
        self._spec = spec
        self._rules = rules
        self._windows = spec.windows
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
        spec = self._spec
        parts = []
        for start, texts, length in self._runs:
            run = heads[start : start + texts * length].view(texts, length, -1, spec.head_dim).transpose(1, 2)
            queries, keys, values = run.split((spec.heads, spec.kv_heads, spec.kv_heads), dim=1)
            mask = self._mask(layer, length, heads)
            if self._rules is not None and (rule := self._rules[layer]) is not None:
                at = torch.arange(length, device=heads.device)
                distances = (at[:, None] - at)[None]
                seen = torch.zeros_like(distances, dtype=torch.float32) if mask is None else mask
                context = rule.attend(queries, keys, values, distances, seen)
            else:
                context = F.scaled_dot_product_attention(
                    queries, keys, values, attn_mask=mask, enable_gqa=spec.kv_heads != spec.heads
                )
            parts.append(context.transpose(1, 2).reshape(texts * length, -1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _mask(self, layer: int, length: int, like: torch.Tensor) -> torch.Tensor | None:
        window = self._windows[layer]
        if not self._spec.causal and window is None:
            return None
        at = torch.arange(length, device=like.device)
        distance = at[:, None] - at
        hidden = distance < 0 if self._spec.causal else torch.zeros_like(distance, dtype=torch.bool)
        if window is not None:
            hidden = hidden | (distance >= window)
        return torch.zeros(length, length, dtype=like.dtype, device=like.device).masked_fill_(
            hidden, -torch.inf
        )
