"""Attention where a KV policy is at work: slots by head, and the attention that each slot gets.

The reference of what the native kernels do for policies. Plain and not fast: keys and values are
gathered entry by entry, and where attention is counted its weights are written out.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from pentad.execution.batch import HeadSlots, RaggedBatch
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.attention import PagedAttention
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.decode import DecodeKernel


class PolicyAttention:
    """Attention of a step whose last sequences may have slots by head.

    Args:
        spec: of the model.
        cache: its keys and values; where it keeps scores, they are counted.
        batch: the step.
        kernel: for decoding sequences with ordinary blocks.
    """

    def __init__(
        self, spec: ModelSpec, cache: KVCache, batch: RaggedBatch, kernel: DecodeKernel | None
    ) -> None:
        whole = whole_part(batch)
        self._tokens = len(whole.token_ids)
        self._whole: PagedAttention | ScoredAttention | None = None
        if self._tokens:
            counted = cache.scores is not None
            self._whole = (
                ScoredAttention(spec, cache, whole) if counted else PagedAttention(spec, cache, whole, kernel)
            )
        slots = batch.head_slots
        self._by_head = None if slots is None else HeadAttention(spec, cache, slots)

    def __call__(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        """Context [N, H D] of heads [N, H + 2K, D]."""
        if self._by_head is None and self._whole is not None:
            return self._whole(layer, heads)
        parts = []
        if self._whole is not None:
            parts.append(self._whole(layer, heads[: self._tokens]))
        if self._by_head is not None:
            parts.append(self._by_head(layer, heads[self._tokens :]))
        return torch.cat(parts)


def whole_part(batch: RaggedBatch) -> RaggedBatch:
    """The sequences of a batch that have ordinary blocks."""
    if batch.head_slots is None:
        return batch
    sequences = len(batch.context_lens) - len(batch.head_slots.lens)
    tokens = int(batch.starts[sequences])
    return dataclasses.replace(
        batch,
        token_ids=batch.token_ids[:tokens],
        positions=batch.positions[:tokens],
        slots=batch.slots[:tokens],
        starts=batch.starts[: sequences + 1],
        context_lens=batch.context_lens[:sequences],
        block_tables=batch.block_tables[:sequences],
        logit_rows=batch.logit_rows[batch.logit_rows < tokens],
        head_slots=None,
    )


class HeadAttention:
    """One new token of each of J sequences, over slots that differ from head to head."""

    def __init__(self, spec: ModelSpec, cache: KVCache, slots: HeadSlots) -> None:
        self._spec = spec
        self._cache = cache
        size = cache.block_size
        order = np.arange(int(slots.lens.max()))
        seen = order < slots.lens[:, :, None]  # [J, heads, S]
        places = np.where(seen, order, 0)  # behind a head's slots its first one is read and not seen
        pages = np.take_along_axis(slots.pages, places // size, axis=2).astype(np.int64)
        rows = cache.entry_rows(pages * size + places % size)
        shape = (len(rows), spec.layers, spec.kv_heads, -1)
        own = np.take_along_axis(rows, slots.lens[:, :, None].astype(np.int64) - 1, axis=2)
        self._rows = torch.from_numpy(rows.reshape(shape)).to(cache.device)  # [J, L, K, S]
        self._own = torch.from_numpy(own.reshape(shape)).to(cache.device)  # [J, L, K, 1]
        hidden = torch.from_numpy(~seen.reshape(shape)).to(cache.device)
        self._hidden = torch.zeros(hidden.shape, device=cache.device).masked_fill_(hidden, -torch.inf)

    def __call__(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        """Context [J, H D] of heads [J, H + 2K, D]."""
        spec, count = self._spec, len(heads)
        queries, keys, values = heads.split((spec.heads, spec.kv_heads, spec.kv_heads), dim=1)
        self._cache.write_entries(self._own[:, layer, :, 0], keys, values)
        found, sums = self._cache.read_entries(self._rows[:, layer])  # [J, K, S, D]
        grouped = queries.reshape(count, spec.kv_heads, -1, spec.head_dim).float()  # [J, K, G, D]
        scores = grouped @ found.float().transpose(2, 3) * spec.head_dim**-0.5
        weights = (scores + self._hidden[:, layer].unsqueeze(2)).softmax(-1)  # [J, K, G, S]
        if self._cache.scores is not None:
            # Slots behind a head's last add 0 to its first.
            self._cache.add_scores(self._rows[:, layer], weights.sum(2))
        return (weights @ sums.float()).to(heads.dtype).flatten(1)


class ScoredAttention:
    """Attention over ordinary blocks that counts what each slot is attended to, one sequence at a time."""

    def __init__(self, spec: ModelSpec, cache: KVCache, batch: RaggedBatch) -> None:
        self._spec = spec
        self._cache = cache
        self._slots = torch.from_numpy(batch.slots).to(cache.device, torch.int64)
        size = cache.block_size
        heads = spec.layers * spec.kv_heads
        self._sequences = []
        for i, end in enumerate(batch.context_lens.tolist()):
            start, stop = int(batch.starts[i]), int(batch.starts[i + 1])
            order = np.arange(end)
            blocks = batch.block_tables[i, order // size].astype(np.int64)
            pages = blocks * heads + np.arange(heads)[:, None]  # [heads, S]
            rows = torch.from_numpy(cache.entry_rows(pages * size + order % size)).to(cache.device)
            hidden = torch.from_numpy(order > np.arange(end - (stop - start), end)[:, None]).to(cache.device)
            self._sequences.append((start, stop, rows.view(spec.layers, spec.kv_heads, -1), hidden))

    def __call__(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        """Context [N, H D] of heads [N, H + 2K, D]."""
        spec, cache = self._spec, self._cache
        cache.write(layer, self._slots, heads[:, spec.heads :])
        parts = []
        for start, stop, rows, hidden in self._sequences:
            cache.clear_scores(rows[layer][:, len(rows[layer][0]) - (stop - start) :])
            keys, values = cache.read_entries(rows[layer])  # [K, S, D]
            queries = heads[start:stop, : spec.heads].transpose(0, 1)  # [H, T, D]
            grouped = queries.reshape(spec.kv_heads, -1, spec.head_dim).float()  # [K, G T, D]
            scores = grouped @ keys.float().transpose(1, 2) * spec.head_dim**-0.5
            scores = scores.view(spec.kv_heads, -1, stop - start, scores.shape[-1])  # [K, G, T, S]
            weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
            cache.add_scores(rows[layer], weights.sum((1, 2)))
            context = weights.flatten(1, 2) @ values.float()  # [K, G T, D]
            context = context.view(spec.heads, stop - start, -1).transpose(0, 1)
            parts.append(context.to(heads.dtype).flatten(1))
        return torch.cat(parts)
