"""Parts of a step that follow one another through the stages of a pipeline, or go to ranks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pentad.execution.batch import RaggedBatch


def cuttable(batch: RaggedBatch) -> bool:
    """Whether its tokens can be taken apart anywhere: not those of trees, drafts and states."""
    parts = (batch.drafted, batch.tree_slots, batch.state_rows, batch.state_saves)
    return all(part is None for part in parts)


def cut(batch: RaggedBatch, start: int, stop: int) -> RaggedBatch:
    """Tokens [start, stop) as a batch of their own, which sees what was computed in front of it."""
    assert cuttable(batch)
    inside = [
        i
        for i in range(len(batch.context_lens))
        if start < stop and max(batch.starts[i], start) < min(batch.starts[i + 1], stop)
    ]
    ends = np.minimum(batch.starts[1:], stop)
    begins = np.maximum(batch.starts[:-1], start)
    wanted = batch.logit_rows[(batch.logit_rows >= start) & (batch.logit_rows < stop)]
    rows = batch.embedding_rows
    return replace(
        batch,
        token_ids=batch.token_ids[start:stop],
        positions=batch.positions[start:stop],
        slots=batch.slots[start:stop],
        starts=np.array([*(begins[inside] - start), stop - start], np.int32),
        context_lens=(batch.context_lens - (batch.starts[1:] - ends))[inside].astype(np.int32),
        block_tables=batch.block_tables[inside],
        logit_rows=(wanted - start).astype(np.int32),
        embedding_rows=None if rows is None else rows[start:stop],
    )


def bounds(tokens: int, shares: Sequence[float]) -> list[tuple[int, int]]:
    """Consecutive ranges of tokens in those shares, some of them empty where there are few."""
    ends = [round(tokens * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]
    return list(zip([0, *ends], ends, strict=False))


def pieces(batch: RaggedBatch, count: int) -> list[RaggedBatch]:
    """The batch in at most so many parts of about equal size, in order."""
    if count <= 1 or not cuttable(batch):
        return [batch]
    parts = bounds(len(batch.token_ids), [1.0] * count)
    return [cut(batch, start, stop) for start, stop in parts if stop > start]
