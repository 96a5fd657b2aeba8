"""Ragged batches written down as sequences: what each has cached and what it computes now."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from pentad.execution.batch import RaggedBatch

Logits = Callable[[RaggedBatch], np.ndarray]
"""A runner's logits of a batch."""
Reference = Callable[[list[int]], np.ndarray]
"""The logits [N, V] of one text of N tokens, computed otherwise."""


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


def check_cut_sequences(logits: Logits, reference: Reference, vocab_size: int, tolerance: float) -> None:
    """Whole, in chunks of many sizes and token by token, a sequence has the reference's logits."""
    tokens = np.random.default_rng(3).integers(0, vocab_size, 90).tolist()
    expected = reference(tokens)
    assert expected.std() > 0.1, "near-constant logits would prove nothing"
    blocks = [9, 3, 4, 60, 11, 0]
    whole = logits(ragged([(tokens, 0, blocks)]))
    np.testing.assert_allclose(whole, expected, atol=tolerance, rtol=tolerance)
    cuts = [0, 1, 33, 49, 50, 51, 52, 83, 90]
    parts = [logits(ragged([(tokens[a:b], a, blocks)])) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=tolerance, rtol=tolerance)


def check_mixed_step(logits: Logits, reference: Reference, vocab_size: int, tolerance: float) -> None:
    """In one step with others, each sequence has the logits that it has alone."""
    rng = np.random.default_rng(4)
    texts = [rng.integers(0, vocab_size, size).tolist() for size in (70, 5, 40, 1, 90)]
    tables = [list(range(i * 8, i * 8 + 6)) for i in range(5)]
    cached = [69, 4, 20, 0, 89]  # three decodes of unlike length, a chunk and a first token
    logits(ragged([(t[:c], 0, b) for t, c, b in zip(texts, cached, tables, strict=True) if c]))
    got = logits(ragged([(t[c:], c, b) for t, c, b in zip(texts, cached, tables, strict=True)]))
    expected = [reference(t)[c:] for t, c in zip(texts, cached, strict=True)]
    np.testing.assert_allclose(got, np.concatenate(expected), atol=tolerance, rtol=tolerance)
