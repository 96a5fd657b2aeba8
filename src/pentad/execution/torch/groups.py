"""Which sequences of a step are attended to together, and what they see.

Sequences with one new token form batches; those with more run one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pentad.execution.batch import Int32, RaggedBatch
from pentad.execution.positions import Sight
from pentad.execution.torch.cache import KVCache, Rows
from pentad.execution.torch.decode import DecodeRows, table_columns
from pentad.execution.torch.trees import chunk_lengths, see_branches, tree_slots

_PADDING_RATIO = 2
_PADDING_FLOOR_TOKENS = 64
"""A decode batch is split where padding would more than double a context longer than the floor."""

Indices = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
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


def groups_of(batch: RaggedBatch, cache: KVCache, sight: Sight, *, fused: bool) -> Iterator[Group]:
    """The step's sequences in the groups that are computed together."""
    counts = chunk_lengths(batch)
    singles = np.flatnonzero(counts == 1)
    if fused and len(singles):
        yield _fused_group(batch, cache, singles)
    if not fused:
        yield from single_groups(batch, cache, singles, sight)
    for i in np.flatnonzero(counts > 1):
        yield _chunk_group(batch, cache, sight, int(i))


def single_groups(batch: RaggedBatch, cache: KVCache, singles: Indices, sight: Sight) -> Iterator[Group]:
    """Sequences with one new token, in as few groups as padding allows."""
    for members in _similar(singles, batch.context_lens, sight):
        yield _single_group(batch, cache, sight, members)


def _similar(sequences: Indices, context_lens: Int32, sight: Sight) -> Iterator[Indices]:
    """Splits sequences so that padding to the longest of a part at most doubles a long context."""
    if not len(sequences):
        return
    lengths = context_lens[sequences]
    lengths = lengths - sight.first(lengths - 1)
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


def _fused_group(batch: RaggedBatch, cache: KVCache, members: Indices) -> Group:
    """Sequences with one new token, for a kernel that reads their blocks in place."""
    lens = batch.context_lens[members]
    tables = table_columns(batch.block_tables[members], lens, cache.block_size)
    return Group(
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


def _single_group(batch: RaggedBatch, cache: KVCache, sight: Sight, members: Indices) -> Group:
    """Sequences with one new token: padded to the longest, what is not theirs masked."""
    size = cache.block_size
    lens = batch.context_lens[members]
    first_seen = sight.first(lens - 1)
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
    return Group(
        rows=_member_rows(batch, cache, members),
        sequences=len(members),
        # Padded with a block of its own: a number that is not one would show through any mask.
        blocks=block_rows(np.where(blocks < 0, blocks[:, :1], blocks).reshape(-1), cache.device),
        length=length,
        at=lens - 1,
        first=first_block * size,
        single=True,
        mask=mask,
    )


def _chunk_group(batch: RaggedBatch, cache: KVCache, sight: Sight, i: int) -> Group:
    """One sequence with several new tokens, which see what came before and each other's past."""
    size = cache.block_size
    start, stop = int(batch.starts[i]), int(batch.starts[i + 1])
    end = int(batch.context_lens[i])
    positions = batch.positions[start:stop]
    first_seen = sight.first(positions)
    first_block = int(first_seen.min()) // size
    slots = np.arange(first_block * size, end)
    mask = None
    if tree_slots(batch, i) or positions[0] > 0 or first_seen.any():
        seen = slots <= np.arange(end - (stop - start), end)[:, None]
        if sight.limited:
            seen &= slots >= first_seen[:, None]
        see_branches(seen, batch, i)
        mask = _additive(seen, cache)
    blocks = batch.block_tables[i, first_block : -(-end // size)]
    return Group(
        rows=slice(start, stop),
        sequences=1,
        blocks=block_rows(blocks, cache.device),
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


def block_rows(blocks: Int32, device: torch.device) -> Rows:
    """Consecutive blocks are a view of the cache; others are gathered."""
    if np.array_equal(blocks, np.arange(blocks[0], blocks[0] + len(blocks))):
        return slice(int(blocks[0]), int(blocks[0]) + len(blocks))
    return torch.from_numpy(np.ascontiguousarray(blocks)).to(device)
