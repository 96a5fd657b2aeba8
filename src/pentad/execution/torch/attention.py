"""Attention over KV blocks, and over whole texts.

The cache of one layer is rows of blocks; a block holds P slots, a slot one token's keys and values:

    [num_blocks, P, 2, K, D]        gather: whole blocks by number        write: slots by index

so that one index operation writes a step and one gathers a batch, keys and values together.
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
from pentad.execution.torch.trees import chunk_lengths, see_branches, tree_slots

_PADDING_RATIO = 2
_PADDING_FLOOR_TOKENS = 64
"""A decode batch is split where padding would more than double a context longer than the floor."""

Rows: TypeAlias = slice | torch.Tensor
Indices = npt.NDArray[np.intp]


class KVCache:
    """Keys and values of all layers in numbered blocks, in the compute precision.

    Address space is reserved at once; on a CPU the system provides a page when it is first written.
    """

    def __init__(
        self, spec: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.dtype = dtype
        self.device = device
        shape = (spec.layers, num_blocks, block_size, 2, spec.kv_heads, spec.head_dim)
        if device.type == "cpu":
            kind = np.uint16 if dtype.itemsize == 2 else np.uint32
            self._data = torch.from_numpy(np.zeros(shape, kind)).view(dtype)
        else:
            self._data = torch.zeros(shape, dtype=dtype, device=device)
        self._blocks = tuple(self._data.view(spec.layers, num_blocks, -1))
        self._slots = tuple(self._data.view(spec.layers, num_blocks * block_size, -1))
        self._slot_shape = (2, spec.kv_heads, spec.head_dim)

    @property
    def nbytes(self) -> int:
        return int(self._data.nbytes)

    def write(self, layer: int, slots: torch.Tensor, keys_values: torch.Tensor) -> None:
        """Stores rows [N, 2K, D] at slots [N]."""
        self._slots[layer].index_copy_(0, slots, keys_values.flatten(1))

    def read(
        self, layer: int, blocks: Rows, sequences: int, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [B, K, S, D] of B sequences whose blocks are listed end to end."""
        rows = self._blocks[layer]
        found = rows[blocks] if isinstance(blocks, slice) else rows.index_select(0, blocks)
        both = found.view(sequences, -1, *self._slot_shape)[:, :length]
        return both[:, :, 0].transpose(1, 2), both[:, :, 1].transpose(1, 2)

    def copy(self, source: int, target: int) -> None:
        """Copies one block over all layers."""
        self._data[:, target].copy_(self._data[:, source])

    def copy_slots(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies single slots over all layers."""
        at = torch.tensor([*sources, *targets], device=self.device).split(len(sources))
        slots = self._data.flatten(1, 2)  # [L, slots, 2, K, D], a view
        slots.index_copy_(1, at[1], slots.index_select(1, at[0]))


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


class PagedAttention:
    """Causal attention of one step over the blocks that its sequences hold.

    Built once per step, called once per layer. Keys and values of the step are written before
    they are read, so a token sees itself.
    """

    def __init__(self, spec: ModelSpec, cache: KVCache, batch: RaggedBatch) -> None:
        self._spec = spec
        self._cache = cache
        self._slots = torch.from_numpy(batch.slots).to(cache.device, torch.int64)
        self._tokens = len(batch.token_ids)
        self._windows = layer_windows(spec)
        self._groups = {window: tuple(_groups(batch, cache, window)) for window in set(self._windows)}

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
        keys, values = self._cache.read(layer, group.blocks, group.sequences, group.length)
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


def layer_windows(spec: ModelSpec) -> tuple[int | None, ...]:
    """The attention window of each layer; None where all earlier tokens are seen."""
    narrow = range(spec.layers) if spec.window_layers is None else spec.window_layers
    return tuple(spec.window if i in narrow else None for i in range(spec.layers))


def _groups(batch: RaggedBatch, cache: KVCache, window: int | None) -> Iterator[_Group]:
    """The step's sequences in the groups that are computed together."""
    counts = chunk_lengths(batch)
    singles = np.flatnonzero(counts == 1)
    for members in _similar(singles, batch.context_lens, window):
        yield _single_group(batch, cache, window, members, whole=len(members) == len(batch.token_ids))
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


def _single_group(
    batch: RaggedBatch, cache: KVCache, window: int | None, members: Indices, *, whole: bool
) -> _Group:
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
        rows=slice(None)
        if whole
        else torch.from_numpy(batch.starts[members].astype(np.int64)).to(cache.device),
        sequences=len(members),
        blocks=_block_rows(np.maximum(blocks, 0).reshape(-1), cache.device),
        length=length,
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

    def __init__(self, spec: ModelSpec, lengths: Sequence[int]) -> None:
        self._spec = spec
        self._windows = layer_windows(spec)
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
            context = F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=self._mask(layer, length, heads),
                enable_gqa=spec.kv_heads != spec.heads,
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
