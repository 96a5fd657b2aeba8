"""Attention where a filter says which cached positions a step attends to (execution/attention_filter.py).

Plain and not fast: the filter decides in NumPy, and what is left is computed under a mask. What it tells is
what a step would have to read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from pentad.errors import Incompatible
from pentad.execution.attention_filter import (
    FULL_BITS,
    AttentionFilter,
    Chosen,
    FilterCounts,
    FilterRun,
    Floats,
    Look,
    Mask,
)
from pentad.execution.batch import RaggedBatch
from pentad.execution.mixers import Attention
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.trees import see_branches

_ROWS = 64
"""Tokens that a filter looks at at once, which bounds its memory."""


@dataclass(frozen=True, slots=True)
class Filtering:
    """A filter at work in a runner, and what was attended to since it began."""

    filter: AttentionFilter
    counts: FilterCounts = field(default_factory=FilterCounts)


def check_filter(spec: ModelSpec, device: str) -> None:
    """Raises Incompatible for a model whose attention is not plain over all positions in every layer."""
    if device != "cpu":
        raise Incompatible(
            f"attention is filtered on the CPU, not on {device}",
            hint="set --device cpu, or --attention-filter unfiltered",
            param="attention_filter",
        )
    mixers = [block.mixer for block in spec.blocks]
    limited = any(not isinstance(m, Attention) or m.sight.limited for m in mixers)
    if limited or not spec.plain_scores or not spec.by_head:
        raise Incompatible(
            f"the layers of {spec.name!r} do not all weigh every position by plain products of equal heads",
            hint="set --attention-filter unfiltered",
            param="attention_filter",
        )


class FilteredAttention:
    """Causal attention of one step over blocks, as far as a filter lets it. Built once per step.

    Args:
        spec: of the model, which `check_filter` has let pass.
        filtering: the filter, and what takes the counts.
    """

    def __init__(self, spec: ModelSpec, cache: KVCache, batch: RaggedBatch, filtering: Filtering) -> None:
        self._spec = spec
        self._cache = cache
        self._counts = filtering.counts
        self._slots = torch.from_numpy(batch.slots.astype(np.int64))
        self._parts: list[_Part] = []
        for sequence, context in enumerate(batch.context_lens):
            begin, end = int(batch.starts[sequence]), int(batch.starts[sequence + 1])
            seen = np.arange(context) <= np.arange(context - (end - begin), context)[:, None]
            see_branches(seen, batch, sequence)
            blocks = batch.block_tables[sequence, : -(-context // cache.block_size)]
            for first in range(begin, end, _ROWS):
                run = filtering.filter.start(spec)
                assert run is not None, "a filter that leaves nothing out is not asked"
                rows = slice(first, min(end, first + _ROWS))
                visible = seen[first - begin : rows.stop - begin]
                self._parts.append(_Part(run, rows, blocks.astype(np.int64), int(context), visible))

    def __call__(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        """Context [N, H D] of heads [N, H + 2K, D]."""
        spec = self._spec
        self._cache.write(layer, self._slots, heads[:, spec.heads :])
        context = heads.new_empty(len(heads), spec.heads * spec.head_dim)
        for part in self._parts:
            keys, values = self._cache.read(layer, torch.from_numpy(part.blocks), 1, part.context)
            shared = spec.heads // spec.kv_heads
            look = Look(
                layer=layer,
                queries=_array(heads[part.rows, : spec.heads].transpose(0, 1)),
                keys=np.repeat(_array(keys[0]), shared, axis=0),
                visible=part.visible,
                scale=spec.head_dim**-0.5,
            )
            given = self._attend(part.run, look, np.repeat(_array(values[0]), shared, axis=0))
            rows = torch.from_numpy(given).transpose(0, 1).flatten(1)
            context[part.rows] = rows.to(heads.dtype)
        return context

    def _attend(self, run: FilterRun, look: Look, values: Floats) -> Floats:
        """[H, T, D]"""
        chosen = run.choose(look)
        keep = with_own(chosen.keep & look.visible, look.visible)
        scores = look.scores(look.queries, look.keys) if chosen.scores is None else chosen.scores
        if chosen.log_shares is not None:
            scores = scores + chosen.log_shares
        scores = np.where(keep, scores, np.float32(-np.inf))
        raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights: Floats = raised / raised.sum(axis=-1, keepdims=True)
        read = run.skip(weights)
        if read is not None:
            keep = keep & read
            weights = weights * keep
        given: Floats = weights @ values
        if chosen.heads is not None:
            given = given * chosen.heads[:, :, None]
        run.note(weights, given)
        self._count(look, chosen, with_own(chosen.keep & look.visible, look.visible), keep)
        return given

    def _count(self, look: Look, chosen: Chosen, scored: Mask, weighted: Mask) -> None:
        counts, number = self._counts, look.keys.shape[-1] * FULL_BITS
        seen, kept, added = (int(np.count_nonzero(each)) for each in (look.all(), scored, weighted))
        score_bits = kept * number if chosen.score_bits is None else chosen.score_bits
        counts.seen += seen
        counts.scored += kept
        counts.weighted += added
        counts.read_bits += chosen.read_bits + score_bits + added * number
        counts.full_bits += 2 * seen * number


@dataclass(frozen=True, slots=True)
class _Part:
    """Some new tokens of a sequence."""

    run: FilterRun
    rows: slice
    blocks: npt.NDArray[np.int64]
    context: int
    visible: Mask


def with_own(keep: Mask, visible: Mask) -> Mask:
    """With the last position that each row may see, its own, so that no row is left with nothing."""
    kept = keep.copy()
    own = visible.shape[1] - 1 - visible[:, ::-1].argmax(axis=1)
    kept[:, np.arange(len(own)), own] = True
    return kept


def _array(x: torch.Tensor) -> Floats:
    found: Floats = x.float().contiguous().numpy()
    return found
