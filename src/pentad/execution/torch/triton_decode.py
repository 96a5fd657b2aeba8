# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: N803
"""Decode attention in Triton: reads each key and value once, in place, for all query heads that share it.

A program computes the query heads of one KV head of one row over one share of the row's slots, with
running maximum and sum (Dao et al. 2022); a second kernel joins the shares (flash-decoding, Dao et
al. 2023). How many shares there are follows from the number of rows alone, so the launch is the same
whatever the lengths and can be recorded. The only module that imports triton.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from pentad.execution.torch.decode import DecodeRows

_MOST_SPLITS = 32
_PROGRAMS_PER_PROCESSOR = 2
_DOT_ROWS = 16
"""The fewest rows and columns of a tile that the tensor cores take."""
_TILE_BYTES = 16 << 10
"""Of keys, and again of values, in shared memory per stage; consumer GPUs have 99 KiB in all."""
_STAGES = 2
"""Tiles in flight: one is loaded while the one before it is computed."""


@triton.jit
def _attend_share(
    queries,
    cache,
    tables,
    lens,
    contexts,
    tops,
    sums,
    scale,
    query_stride,
    table_stride,
    WINDOW: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    SPLITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
):
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lens + row)
    first = 0
    if WINDOW > 0:
        first = tl.maximum(length - WINDOW, 0)
    share = tl.cdiv(tl.cdiv(length - first, TILE), SPLITS) * TILE
    start = first + split * share
    stop = tl.minimum(start + share, length)

    member = tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    head = kv_head * GROUP + member
    filled = (member[:, None] < GROUP) & (column[None, :] < HEAD_DIM)
    query = tl.load(
        queries + row * query_stride + head[:, None] * HEAD_DIM + column[None, :], mask=filled, other=0.0
    )
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    context = tl.zeros([ROWS, COLUMNS], tl.float32)
    for at in range(start, stop, TILE):
        slot = at + tl.arange(0, TILE)
        inside = slot < stop
        block = tl.load(tables + (slot // BLOCK_SIZE) * table_stride + row, mask=inside, other=0)
        place = (block.to(tl.int64) * BLOCK_SIZE + slot % BLOCK_SIZE) * (2 * KV_HEADS * HEAD_DIM)
        entry = cache + place[:, None] + kv_head * HEAD_DIM + column[None, :]
        present = inside[:, None] & (column[None, :] < HEAD_DIM)
        key = tl.load(entry, mask=present, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))  # finite: a tile has at least one slot inside
        shrink = tl.exp(top - higher)
        weights = tl.exp(scores - higher[:, None])
        value = tl.load(entry + KV_HEADS * HEAD_DIM, mask=present, other=0.0)
        context = context * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        total = total * shrink + tl.sum(weights, 1)
        top = higher

    part = (row * KV_HEADS * GROUP + head) * SPLITS + split
    tl.store(tops + part, top, mask=member < GROUP)
    tl.store(sums + part, total, mask=member < GROUP)
    tl.store(contexts + part[:, None] * HEAD_DIM + column[None, :], context, mask=filled)


@triton.jit
def _join_shares(
    contexts, tops, sums, out, HEAD_DIM: tl.constexpr, SPLITS: tl.constexpr, COLUMNS: tl.constexpr
):
    """One query head of one row. Shares without slots have a maximum of minus infinity: weight 0."""
    head = tl.program_id(0)
    part = head * SPLITS + tl.arange(0, SPLITS)
    column = tl.arange(0, COLUMNS)
    top = tl.load(tops + part)
    weights = tl.exp(top - tl.max(top, 0))
    present = column < HEAD_DIM
    context = tl.load(contexts + part[:, None] * HEAD_DIM + column[None, :], mask=present[None, :], other=0.0)
    joined = tl.sum(context * weights[:, None], 0) / tl.sum(tl.load(sums + part) * weights, 0)
    tl.store(out + head * HEAD_DIM + column, joined.to(out.dtype.element_ty), mask=present)


class TritonDecode:
    """A `DecodeKernel`. Stateless but for the number of processors that it spreads over."""

    def __init__(self, processors: int) -> None:
        self._processors = processors

    def __call__(
        self, queries: torch.Tensor, blocks: torch.Tensor, rows: DecodeRows, window: int | None
    ) -> torch.Tensor:
        count, heads, head_dim = queries.shape
        _, block_size, _, kv_heads, _ = blocks.shape
        assert blocks.is_contiguous() and rows.tables.is_contiguous()  # noqa: PT018
        splits = self.splits(count * kv_heads)
        parts = count * heads * splits
        columns = max(_DOT_ROWS, triton.next_power_of_2(head_dim))
        contexts = torch.empty(parts, head_dim, dtype=torch.float32, device=queries.device)
        tops = torch.empty(parts, dtype=torch.float32, device=queries.device)
        sums = torch.empty_like(tops)
        _attend_share[(count, kv_heads, splits)](
            queries,
            blocks,
            rows.tables,
            rows.lens,
            contexts,
            tops,
            sums,
            head_dim**-0.5,
            queries.stride(0),
            rows.tables.stride(0),
            WINDOW=window or 0,
            KV_HEADS=kv_heads,
            GROUP=heads // kv_heads,
            HEAD_DIM=head_dim,
            BLOCK_SIZE=block_size,
            SPLITS=splits,
            ROWS=max(_DOT_ROWS, triton.next_power_of_2(heads // kv_heads)),
            COLUMNS=columns,
            TILE=max(_DOT_ROWS, min(64, _TILE_BYTES // (columns * blocks.element_size()))),
            num_stages=_STAGES,
        )
        out = torch.empty(count, heads * head_dim, dtype=blocks.dtype, device=queries.device)
        _join_shares[(count * heads,)](
            contexts, tops, sums, out, HEAD_DIM=head_dim, SPLITS=splits, COLUMNS=columns
        )
        return out

    def splits(self, pairs: int) -> int:
        """Shares of each row's slots, so that that many (row, KV head) pairs fill the processors."""
        wanted = -(-_PROGRAMS_PER_PROCESSOR * self._processors // pairs)
        return int(min(_MOST_SPLITS, triton.next_power_of_2(wanted)))
