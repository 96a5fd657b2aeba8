"""Building the ragged batch of one step out of the sequences' own lists."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import RaggedBatch
from pentad.execution.sequence import Sequence

Work = list[tuple[Sequence, int]]
"""Each sequence of a step and how many of its uncomputed tokens run; their blocks are allocated."""


def ragged_batch(work: Work, tables: npt.NDArray[np.int32], block_size: int) -> RaggedBatch:
    """The step's input. Sequences that run to their last token get a logit row.

    The arrays are fresh, so a runner may keep them. Plain lists are filled first: for the few
    numbers of a decode step that is faster than numpy calls on slices.

    Args:
        work: sequences with blocks for the tokens to run.
        tables: [rows, M] block tables, padded with -1.
        block_size: tokens per block.
    """
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    starts = [0]
    context_lens: list[int] = []
    table_rows: list[int] = []
    logit_rows: list[int] = []
    for seq, count in work:
        begin = seq.num_computed
        end = begin + count
        if count == 1:
            tokens.append(seq.tokens[begin])
            positions.append(begin)
            slots.append(seq.blocks[begin // block_size] * block_size + begin % block_size)
        else:
            tokens += seq.tokens[begin:end]
            positions += range(begin, end)
            slots += _slots(seq.blocks, begin, end, block_size)
        starts.append(len(tokens))
        context_lens.append(end)
        table_rows.append(seq.row)
        if end == len(seq.tokens):
            logit_rows.append(len(tokens) - 1)
    width = -(-max(context_lens) // block_size)
    return RaggedBatch(
        token_ids=np.array(tokens, dtype=np.int32),
        positions=np.array(positions, dtype=np.int32),
        slots=np.array(slots, dtype=np.int32),
        starts=np.array(starts, dtype=np.int32),
        context_lens=np.array(context_lens, dtype=np.int32),
        block_tables=tables[table_rows, :width],  # [S, M], a copy
        logit_rows=np.array(logit_rows, dtype=np.int32),
    )


def _slots(blocks: Seq[int], begin: int, end: int, block_size: int) -> list[int]:
    """The physical slots of positions begin to end."""
    slots: list[int] = []
    for i in range(begin // block_size, -(-end // block_size)):
        low = max(begin - i * block_size, 0)
        high = min(end - i * block_size, block_size)
        base = blocks[i] * block_size
        slots += range(base + low, base + high)
    return slots
