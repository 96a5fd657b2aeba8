"""Logits of a text in a runner, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import RaggedBatch
from pentad.execution.runner import Runner

Logits = npt.NDArray[np.float32]
_ROWS_AT_ONCE = 64
"""At 150,000 tokens of vocabulary 38 MB."""


def batch_of(runner: Runner, tokens: Sequence[int], start: int, *, last_only: bool = False) -> RaggedBatch:
    """A step of one sequence: these tokens, behind `start` that are cached in its first slots."""
    count, end = len(tokens), start + len(tokens)
    blocks = -(-end // runner.block_size)
    return RaggedBatch(
        token_ids=np.array(tokens, np.int32),
        positions=np.arange(start, end, dtype=np.int32),
        slots=np.arange(start, end, dtype=np.int32),
        starts=np.array([0, count], np.int32),
        context_lens=np.array([end], np.int32),
        block_tables=np.arange(blocks, dtype=np.int32)[None],
        logit_rows=np.array([count - 1], np.int32) if last_only else np.arange(count, dtype=np.int32),
    )


def logits_of(runner: Runner, tokens: Sequence[int], start: int = 0) -> Iterator[Logits]:
    """Logits [n, V] behind each token, in order, with `start` tokens before them cached already."""
    for at in range(0, len(tokens), _ROWS_AT_ONCE):
        yield runner.logits(batch_of(runner, tokens[at : at + _ROWS_AT_ONCE], start + at))


def log_softmax(logits: Logits) -> Logits:
    """Natural logs of the probabilities [n, V]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    sums = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    found: Logits = shifted - np.log(sums).astype(np.float32)
    return found
