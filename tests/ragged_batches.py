"""Ragged batches written down as sequences: what each has cached and what it computes now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pentad.execution.batch import RaggedBatch


def whole(
    tokens: Sequence[int], *, block_size: int = 16, first_block: int = 0, rows: Sequence[int] | None = None
) -> RaggedBatch:
    """One sequence computed at once from an empty cache; logits of all rows unless `rows` are given."""
    return ragged(
        [(tokens, 0, range(first_block, first_block - (-len(tokens) // block_size)))], block_size, rows
    )


def ragged(
    parts: Sequence[tuple[Sequence[int], int, Sequence[int]]],
    block_size: int = 16,
    rows: Sequence[int] | None = None,
) -> RaggedBatch:
    """A step of several sequences: (new tokens, tokens already cached, its blocks) each."""
    tokens = [t for new, _, _ in parts for t in new]
    positions = [p for new, cached, _ in parts for p in range(cached, cached + len(new))]
    slots = [
        blocks[p // block_size] * block_size + p % block_size
        for new, cached, blocks in parts
        for p in range(cached, cached + len(new))
    ]
    width = max(len(blocks) for _, _, blocks in parts)
    tables = np.full((len(parts), width), -1, np.int32)
    for i, (_, _, blocks) in enumerate(parts):
        tables[i, : len(blocks)] = list(blocks)
    return RaggedBatch(
        token_ids=np.array(tokens, np.int32),
        positions=np.array(positions, np.int32),
        slots=np.array(slots, np.int32),
        starts=np.cumsum([0] + [len(new) for new, _, _ in parts]).astype(np.int32),
        context_lens=np.array([cached + len(new) for new, cached, _ in parts], np.int32),
        block_tables=tables,
        logit_rows=np.arange(len(tokens), dtype=np.int32) if rows is None else np.array(rows, np.int32),
    )
