"""Building the ragged batch of one step out of the sequences' own lists."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import RaggedBatch, Sources
from pentad.execution.kv.cache import KVCache
from pentad.execution.kv.policy_cache import PolicyCache
from pentad.execution.sequence import Sequence
from pentad.execution.speculation.tree import TokenTree

Work = list[tuple[Sequence, int]]
"""Each sequence of a step and how many of its uncomputed and drafted tokens run, in that order."""


def ragged_batch(work: Work, tables: npt.NDArray[np.int32], block_size: int) -> RaggedBatch:
    """The step's input. The last token of a sequence gets a logit row, and so does each drafted one.

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
    trees: list[tuple[int, TokenTree]] = []
    drafting = embedding = False
    for seq, count in work:
        end = seq.num_computed + count
        begin = max(seq.num_computed, seq.source_slots)
        if seq.embedded and begin < seq.prompt_tokens:
            embedding = True
        if seq.num_draft:
            draft = seq.draft
            assert draft is not None
            tokens += seq.tokens[begin:]
            tokens += draft.tree.tokens
            last = len(seq.tokens) - 1
            positions += range(begin, last + 1)
            positions += [last + depth for depth in draft.tree.depths]
            slots += _slots(seq.blocks, begin, end, block_size)
            if not draft.tree.is_chain:
                trees.append((len(context_lens), draft.tree))
        elif count == 1:
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
        if seq.scores is not None:
            logit_rows += [starts[-2] - begin + position for position in seq.scores.wanted(begin, count)]
        if end == len(seq.tokens):
            logit_rows.append(len(tokens) - 1)
        elif end > len(seq.tokens):
            logit_rows += range(len(tokens) - 1 - end + len(seq.tokens), len(tokens))
            drafting = True
    drafted = [seq.num_draft for seq, _ in work] if drafting else None
    tree_slots, tree_masks = _trees(trees, starts) if trees else (None, None)
    embeddings, embedding_rows = _embeddings(work, starts) if embedding else (None, None)
    width = -(-max(context_lens) // block_size)
    return RaggedBatch(
        token_ids=np.array(tokens, dtype=np.int32),
        positions=np.array(positions, dtype=np.int32),
        slots=np.array(slots, dtype=np.int32),
        starts=np.array(starts, dtype=np.int32),
        context_lens=np.array(context_lens, dtype=np.int32),
        block_tables=tables[table_rows, :width],  # [S, M], a copy
        logit_rows=np.array(logit_rows, dtype=np.int32),
        drafted=np.array(drafted, dtype=np.int32) if drafted else None,
        tree_slots=tree_slots,
        tree_masks=tree_masks,
        embeddings=embeddings,
        embedding_rows=embedding_rows,
        adapters=_adapters(work),
    )


def source_batch(work: Work, cache: KVCache, block_size: int) -> RaggedBatch:
    """The step's input of a model with an encoder.

    A source is encoded in the step that computes the last of its slots; in one that ends in front of it
    nothing is done for the sequence. The decoder's positions and tables begin behind the source.
    """
    ready = [(seq, count) for seq, count in work if seq.num_computed + count > seq.source_slots]
    batch = ragged_batch(ready, cache.tables, block_size) if ready else _empty()
    offsets = np.array([seq.source_slots for seq, _ in ready], dtype=np.int32)
    fresh = [seq for seq, count in work if seq.num_computed < seq.source_slots <= seq.num_computed + count]
    texts = [seq.request.source for seq in fresh]
    slots = [_slots(seq.blocks, 0, len(text), block_size) for seq, text in zip(fresh, texts, strict=True)]
    lens = np.array([len(seq.request.source) for seq, _ in ready], dtype=np.int32)
    held = cache.tables[[seq.row for seq, _ in ready]]
    width = max(1, -(-int(lens.max(initial=0)) // block_size))
    return replace(
        batch,
        positions=batch.positions - np.repeat(offsets, np.diff(batch.starts)),
        context_lens=batch.context_lens - offsets,
        block_tables=_behind(held, offsets // block_size),
        sources=Sources(
            tables=held[:, :width],
            lens=lens,
            token_ids=np.array([token for text in texts for token in text], dtype=np.int32),
            starts=np.cumsum([0, *map(len, texts)], dtype=np.int32),
            slots=np.array([slot for part in slots for slot in part], dtype=np.int32),
        ),
    )


def _behind(tables: npt.NDArray[np.int32], skipped: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Rows [S, M] of block tables without their first `skipped` [S] blocks, padded with -1."""
    columns = np.arange(tables.shape[1], dtype=np.int32) + skipped[:, None]
    found = np.take_along_axis(tables, np.minimum(columns, tables.shape[1] - 1), axis=1)
    return np.where(columns < tables.shape[1], found, np.int32(-1))


def with_states(batch: RaggedBatch, work: Work, cache: KVCache) -> RaggedBatch:
    """The same input, told where the sequences' states lie and where snapshots of them go."""
    rows = np.array([seq.row for seq, _ in work], dtype=np.int32)
    saves = [(i, at, row) for i, (seq, count) in enumerate(work) for at, row in cache.saves(seq, count)]
    found = np.array(saves, dtype=np.int32).reshape(-1, 3) if saves else None
    return replace(batch, state_rows=rows, state_saves=found)


def _adapters(work: Work) -> tuple[str, ...] | None:
    found = tuple(seq.adapter for seq, _ in work)
    return found if any(found) else None


def policy_batch(work: Work, cache: PolicyCache, block_size: int) -> RaggedBatch:
    """The step's input where the last sequences of the work may have slots by head."""
    count, slots = cache.head_slots(work)
    whole = ragged_batch(work[:count], cache.tables, block_size) if count else _empty()
    if slots is None:
        return whole
    by_head = work[count:]
    tokens = np.array([seq.tokens[seq.num_computed] for seq, _ in by_head], dtype=np.int32)
    positions = np.array([seq.num_computed for seq, _ in by_head], dtype=np.int32)
    first = len(whole.token_ids)
    drawing = [first + i for i, (seq, _) in enumerate(by_head) if seq.num_computed + 1 == len(seq.tokens)]
    tables = np.full((len(work), whole.block_tables.shape[1]), -1, np.int32)
    tables[:count] = whole.block_tables
    rows = whole.embedding_rows
    if rows is not None:  # prompts alone have inputs of their own, and none of theirs has slots by head
        rows = np.concatenate((rows, np.full_like(tokens, -1)))
    return RaggedBatch(
        token_ids=np.concatenate((whole.token_ids, tokens)),
        positions=np.concatenate((whole.positions, positions)),
        slots=np.concatenate((whole.slots, np.full_like(tokens, -1))),
        starts=np.concatenate((whole.starts, np.arange(first + 1, first + 1 + len(tokens), dtype=np.int32))),
        context_lens=np.concatenate((whole.context_lens, slots.lens.max(axis=1))),
        block_tables=tables,
        logit_rows=np.concatenate((whole.logit_rows, np.array(drawing, dtype=np.int32))),
        embeddings=whole.embeddings,
        embedding_rows=rows,
        adapters=_adapters(work),
        head_slots=slots,
    )


def _embeddings(
    work: Work, starts: Seq[int]
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.int32] | None]:
    """The step's inputs that are no tokens, and which token takes which; None where the chunks hold none."""
    found: list[npt.NDArray[np.float32]] = []
    rows = np.full(starts[-1], -1, dtype=np.int32)
    count = 0
    for s, (seq, todo) in enumerate(work):
        begin, end = seq.num_computed, seq.num_computed + todo
        for span in seq.embedded:
            low, high = max(begin, span.start), min(end, span.end)
            if low < high:
                at = starts[s] + low - begin
                rows[at : at + high - low] = range(count, count + high - low)
                found.append(span.matrix()[low - span.start : high - span.start])
                count += high - low
    return (np.concatenate(found), rows) if found else (None, None)


def _empty() -> RaggedBatch:
    none = np.empty(0, np.int32)
    return RaggedBatch(
        token_ids=none,
        positions=none,
        slots=none,
        starts=np.zeros(1, np.int32),
        context_lens=none,
        block_tables=np.empty((0, 1), np.int32),
        logit_rows=none,
    )


def _trees(
    trees: Iterable[tuple[int, TokenTree]], starts: Seq[int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint64]]:
    """Which slots are of a tree and what its tokens see; each tree with the number of its sequence."""
    slots = np.zeros(len(starts) - 1, dtype=np.int32)
    masks = np.zeros(starts[-1], dtype=np.uint64)
    for s, tree in trees:
        slots[s] = len(tree)
        masks[starts[s + 1] - len(tree) : starts[s + 1]] = tree.masks()
    return slots, masks


def _slots(blocks: Seq[int], begin: int, end: int, block_size: int) -> list[int]:
    """The physical slots of positions begin to end."""
    slots: list[int] = []
    for i in range(begin // block_size, -(-end // block_size)):
        low = max(begin - i * block_size, 0)
        high = min(end - i * block_size, block_size)
        base = blocks[i] * block_size
        slots += range(base + low, base + high)
    return slots
