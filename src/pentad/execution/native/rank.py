"""NativeRank: the layers of one stage of a pipeline on the native kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pentad.errors import Incompatible
from pentad.execution.batch import RaggedBatch
from pentad.execution.codecs.base import Floats
from pentad.execution.native.runner import NativeRunner
from pentad.execution.ranks.base import DRIVER, HANDED_ON, LOGITS
from pentad.execution.ranks.group import RankGroup
from pentad.execution.ranks.layout import Layout
from pentad.execution.ranks.pieces import pieces
from pentad.execution.ranks.shards import HeldSource, Shard, ShardSource
from pentad.execution.spec import Head, ModelSpec

_NONE = np.empty(0, np.int32)


class NativeRank:
    """One stage of a pipeline (Rank): reads hidden states as inputs that are no tokens, and hands on its own.

    They travel in float32, so that each stage computes the bits that one process would; where a step goes
    through in pieces, those of the same step taken in as many parts.
    """

    def __init__(
        self,
        spec: ModelSpec,
        layout: Layout,
        group: RankGroup,
        source: ShardSource | HeldSource,
        *,
        num_blocks: int,
        threads: int,
        kernels: str = "auto",
    ) -> None:
        check_pipeline(layout)
        self.shard = Shard(spec, layout, group.rank)
        self.group = group
        self._runner = NativeRunner.load(
            _runnable(self.shard.spec), source, num_blocks=num_blocks, threads=threads, kernels=kernels
        )
        self._last = layout.size - 1
        self.weight_bytes = self._runner.weight_bytes
        self.kv_block_bytes = self._runner.block_bytes
        self.peak_rows = 0
        """The most rows of hidden states that it computed at once."""

    def step(self, batch: RaggedBatch, count: int) -> Floats | None:
        """See Rank."""
        parts = pieces(batch, count)
        own = [self._piece(part) for part in parts]
        if self.group.rank != DRIVER:
            return None
        found = [
            scores if self.shard.last else self.group.receive(self._last, LOGITS)
            for part, scores in zip(parts, own, strict=True)
            if len(part.logit_rows)
        ]
        filled = [scores for scores in found if scores is not None]
        return np.concatenate(filled) if filled else np.empty((0, self.shard.whole.vocab_size), np.float32)

    def _piece(self, batch: RaggedBatch) -> Floats | None:
        """From what enters the stage to what leaves it; the logits, if rank 0 has them."""
        group, shard = self.group, self.shard
        tokens = len(batch.token_ids)
        self.peak_rows = max(self.peak_rows, tokens)
        if not shard.first:
            batch = replace(
                batch,
                token_ids=np.zeros(tokens, np.int32),
                embeddings=group.receive(group.rank - 1, HANDED_ON),
                embedding_rows=np.arange(tokens, dtype=np.int32),
            )
        if not shard.last:
            hidden = self._runner.hidden(replace(batch, logit_rows=_NONE))
            group.send(group.rank + 1, hidden, HANDED_ON)
            return None
        scores = self._runner.logits(batch)
        if group.rank != DRIVER and len(scores):
            group.send(DRIVER, scores, LOGITS, plain=True)
        return scores

    def copy(self, what: str, pairs: Sequence[tuple[int, int]]) -> None:
        """See Rank."""
        if what == "slots":
            self._runner.copy_slots(pairs)
            return
        for source, target in pairs:
            (self._runner.copy_block if what == "block" else self._runner.copy_state)(source, target)


def check_pipeline(layout: Layout) -> None:
    """Raises Incompatible where ranks share layers: the native kernels compute whole ones."""
    if any(len(stage.shares) > 1 for stage in layout.stages):
        raise Incompatible(
            f"the native kernels compute layers whole, but {layout} shares them",
            hint="use a pipeline alone: pp, or set kernels to torch",
            param="parallel",
        )


def _runnable(spec: ModelSpec) -> ModelSpec:
    """The part with a head where it has none, which no step asks for."""
    return spec if spec.head is not None else replace(spec, head=Head(tied=True))
