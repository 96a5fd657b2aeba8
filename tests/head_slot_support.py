"""One sequence on a runner whose heads hold different tokens, and the same computed with plain masks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from pentad.execution.batch import HeadSlots, RaggedBatch
from pentad.execution.kv.head_tables import HeadTables
from pentad.execution.kv.policy import Keep
from pentad.execution.runner import HeadRunner
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.loading import WeightLoader
from pentad.execution.torch.program import Program
from pentad.execution.weights import WeightSource
from ragged_batches import ragged

SCATTERED = [5, 2, 9, 0, 11, 7, 3, 1, 8, 14, 6, 13]
"""Blocks of a text; others are free for what is kept."""


def head_batch(
    token: int, position: int, tables: HeadTables, *, beside: RaggedBatch | None = None
) -> RaggedBatch:
    """A step of one token whose entry the tables have a slot for, behind another batch if there is one."""
    first = beside or ragged([([], 0, [])])
    count = len(first.context_lens) if beside else 0
    width = max(first.block_tables.shape[1], 1)
    block_tables = np.full((count + 1, width), -1, np.int32)
    if count:
        block_tables[:count] = first.block_tables
    tokens = len(first.token_ids)
    return RaggedBatch(
        token_ids=np.append(first.token_ids, token).astype(np.int32),
        positions=np.append(first.positions, position).astype(np.int32),
        slots=np.append(first.slots, -1).astype(np.int32),
        starts=np.append(first.starts[: count + 1], tokens + 1).astype(np.int32),
        context_lens=np.append(first.context_lens[:count], tables.lens.max()).astype(np.int32),
        block_tables=block_tables,
        logit_rows=np.append(first.logit_rows, tokens).astype(np.int32),
        head_slots=HeadSlots(pages=tables.pages[None], lens=tables.lens[None]),
    )


class OneSequence:
    """A text on a runner, from its prompt on; keeps its tables as the engine does."""

    def __init__(self, runner: HeadRunner, text: Sequence[int]) -> None:
        self.runner = runner
        self.heads = runner.spec.layers * runner.spec.kv_heads
        self.size = runner.block_size
        blocks = SCATTERED[: -(-len(text) // self.size)]
        runner.logits(ragged([(text, 0, blocks)], self.size, rows=[]))
        self.tables = HeadTables(blocks, self.heads, self.size, len(text))
        self.computed = len(text)
        self._spare = (n for n in itertools.count() if n < runner.num_blocks and n not in self.tables.blocks)

    def drop(self, keep: Keep, *, elsewhere: bool = False) -> None:
        """Keeps these entries, in other blocks than now if so asked."""
        needed = self.tables.blocks_for(keep)
        stay = [] if elsewhere else self.tables.blocks[:needed]
        stay += [next(self._spare) for _ in range(needed - len(stay))]
        self.runner.move_entries(self.tables.drop(keep, stay))

    def step(self, token: int) -> np.ndarray:
        """Logits behind one more token."""
        new = [next(self._spare) for _ in range(self.tables.missing_blocks())]
        self.tables.append(self.computed, new)
        found = self.runner.logits(head_batch(token, self.computed, self.tables))
        self.computed += 1
        return found[-1]

    def scores(self) -> list[dict[int, float]]:
        """What was counted of each head's entries, by position."""
        found = []
        for pages, positions, length in zip(
            self.tables.pages, self.tables.positions, self.tables.lens, strict=True
        ):
            scores = self.runner.page_scores(np.ascontiguousarray(pages[pages >= 0])).reshape(-1)[:length]
            found.append(dict(zip(positions[:length].tolist(), scores.tolist(), strict=True)))
        return found


class Masked:
    """The same in float32 without blocks: every head sees the positions that it keeps."""

    def __init__(self, spec: ModelSpec, weights: WeightSource) -> None:
        self.spec = spec
        device = torch.device("cpu")
        loaded = WeightLoader(spec, weights, dtype=torch.float32, device=device, pack=False).load()
        self._program = Program(spec, loaded)
        shape = (spec.layers, spec.kv_heads, 0)
        self.kept = np.ones(shape, bool)
        """[L, K, computed]"""
        self.scores = np.zeros(shape)
        self._keys = [torch.empty(spec.kv_heads, 0, spec.head_dim) for _ in range(spec.layers)]
        self._values = [torch.empty(spec.kv_heads, 0, spec.head_dim) for _ in range(spec.layers)]

    def compute(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits behind the last of these further tokens."""
        first, count = self.kept.shape[2], len(tokens)
        more = (self.spec.layers, self.spec.kv_heads, count)
        self.kept = np.concatenate((self.kept, np.ones(more, bool)), axis=2)
        self.scores = np.concatenate((self.scores, np.zeros(more)), axis=2)
        with torch.inference_mode():
            positions = torch.arange(first, first + count)
            hidden = self._program.hidden(torch.tensor(tokens), positions, self._attend)
            return self._program.logits(hidden[-1:])[0].numpy()

    def _attend(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        spec, count = self.spec, len(heads)
        queries, keys, values = heads.transpose(0, 1).split((spec.heads, spec.kv_heads, spec.kv_heads))
        self._keys[layer] = torch.cat((self._keys[layer], keys), dim=1)
        self._values[layer] = torch.cat((self._values[layer], values), dim=1)
        total = self._keys[layer].shape[1]
        seen = torch.arange(total) <= torch.arange(total - count, total)[:, None]  # [T, S]
        seen = seen & torch.from_numpy(self.kept[layer])[:, None, :]  # [K, T, S]
        grouped = queries.reshape(spec.kv_heads, -1, count, spec.head_dim)  # [K, G, T, D]
        scores = grouped @ self._keys[layer].transpose(1, 2).unsqueeze(1) * spec.head_dim**-0.5
        weights = scores.masked_fill(~seen.unsqueeze(1), -torch.inf).softmax(-1)
        self.scores[layer] += weights.sum((1, 2)).numpy()
        context = weights @ self._values[layer].unsqueeze(1)  # [K, G, T, D]
        return context.reshape(spec.heads, count, spec.head_dim).transpose(0, 1).flatten(1)


def random_keep(spec: ModelSpec, slots: int, seed: int) -> Keep:
    """[heads, slots] different numbers of different entries for each head; the first one always."""
    rng = np.random.default_rng(seed)
    heads = spec.layers * spec.kv_heads
    keep = rng.random((heads, slots)) < rng.uniform(0.1, 0.9, (heads, 1))
    keep[:, 0] = True
    return keep
