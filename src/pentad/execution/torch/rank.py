"""TorchRank: what one process computes of a step, over its part of the weights and the KV blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from pentad.execution.batch import RaggedBatch
from pentad.execution.codecs.base import Floats
from pentad.execution.ranks.base import DRIVER, HANDED_ON, KEYS, LOGITS
from pentad.execution.ranks.group import RankGroup
from pentad.execution.ranks.layout import Layout, spans
from pentad.execution.ranks.pieces import bounds, cut, pieces
from pentad.execution.ranks.shards import HeldSource, Shard, ShardSource
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.attention import PagedAttention, attention
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.devices import Precision, resolve_device, resolve_dtype
from pentad.execution.torch.program import Inputs, normed
from pentad.execution.torch.shard import RankExperts, load_shard
from pentad.execution.torch.states import StateStore


class TorchRank:
    """One rank of a layout, in PyTorch. Called by one thread, with the same steps as all others."""

    def __init__(
        self,
        spec: ModelSpec,
        layout: Layout,
        group: RankGroup,
        source: ShardSource | HeldSource,
        *,
        num_blocks: int,
        block_size: int,
        dtype: Precision = "auto",
        device: str = "cpu",
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self.shard = Shard(spec, layout, group.rank)
        self.group = group
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        stage = layout.place(group.rank).stage
        self._members = layout.ranks(stage)
        self._before = layout.ranks(stage - 1) if stage else range(0)
        self._after = range(0) if self.shard.last else layout.ranks(stage + 1)
        self._sources = layout.ranks(len(layout.stages) - 1)
        with torch.inference_mode():
            self._program = load_shard(
                self.shard, source, self._meet, self._exchange, self._dtype, self._device
            )
            self._cache = KVCache(self.shard.spec, num_blocks, block_size, self._dtype, self._device)
            self._states = StateStore(self.shard.spec, self._device)
        self.weight_bytes = self._program.weights.nbytes
        self.kv_block_bytes = self.shard.spec.kv_bytes_per_token(self._dtype.itemsize) * block_size
        self.peak_rows = 0
        """The most rows of hidden states that it computed at once."""

    def step(self, batch: RaggedBatch, count: int) -> Floats | None:
        """Computes its part of a step in so many pieces; at rank 0 the logits [R, V], at others None."""
        with torch.inference_mode():
            self._cache.clear_begun(batch.slots)
            parts = pieces(batch, count)
            own = [self._piece(part) for part in parts]
            if self.group.rank != DRIVER:
                return None
            found = [self._logits(part, scores) for part, scores in zip(parts, own, strict=True)]
            found = [scores for scores in found if len(scores)]
        return np.concatenate(found) if found else np.empty((0, self.shard.whole.vocab_size), np.float32)

    def _piece(self, batch: RaggedBatch) -> Floats | None:
        """From what enters the stage to what leaves it; its part of the logits, if rank 0 has one."""
        group, shard = self.group, self.shard
        own = self._own(batch)
        tokens = torch.from_numpy(own.token_ids).to(self._device)
        positions = torch.from_numpy(own.positions).to(self._device)
        if shard.first:
            x = self._program.embedded(tokens, positions, self._inputs(own))
        else:
            x = self._tensor(group.receive(self._before[shard.index % len(self._before)], HANDED_ON))
        self.peak_rows = max(self.peak_rows, len(x))
        attend = self._attend(batch, own)
        tables = self._program.tables(positions)
        for i, layer in enumerate(self._program.weights.layers):
            x = self._program.block(i, layer, x, tables, attend)
        if not shard.last:
            rows = self._numbers(x)
            for i, rank in enumerate(self._after):
                if i % len(self._members) == shard.index:
                    group.send(rank, rows, HANDED_ON)
        elif len(own.logit_rows):
            hidden = x[torch.from_numpy(own.logit_rows).to(self._device)]
            if self._program.weights.final_norm is not None:
                hidden = normed(hidden, self._program.weights.final_norm)
            scores = self._numbers(self._program.logits(hidden))
            if group.rank == DRIVER:
                return scores
            group.send(DRIVER, scores, LOGITS, plain=True)
        return None

    def _logits(self, batch: RaggedBatch, own: Floats | None) -> Floats:
        """[R, V] of a piece, from the ranks of the last stage."""
        wanted = len(batch.logit_rows)
        counts = [wanted] * len(self._sources)
        if not self.shard.split:
            inside = [(batch.logit_rows >= a) & (batch.logit_rows < b) for a, b in self._token_bounds(batch)]
            counts = [int(each.sum()) for each in inside]
        found = []
        for rank, count in zip(self._sources, counts, strict=True):
            if count and rank == DRIVER:
                assert own is not None
                found.append(own)
            elif count:
                found.append(self.group.receive(rank, LOGITS))
        if not found:
            return np.empty((0, self.shard.whole.vocab_size), np.float32)
        return np.concatenate(found, axis=1 if self.shard.split else 0)

    def copy(self, what: str, pairs: Sequence[tuple[int, int]]) -> None:
        """Moves what its cache holds (messages.py: Copy)."""
        with torch.inference_mode():
            if what == "slots":
                self._cache.copy_slots(*zip(*pairs, strict=True))
                return
            for source, target in pairs:
                (self._cache if what == "block" else self._states).copy(source, target)

    def _meet(self, x: torch.Tensor, what: str) -> torch.Tensor:
        return self._tensor(self.group.all_reduce(self._numbers(x), self._members, what))

    def _exchange(
        self, experts: RankExperts, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """What all experts of a layer give: summed over ranks, or by way of the ranks that have them."""
        if self.shard.stage.sharing == "tensor":
            return self._meet(experts.given(x, chosen, weights), "ffn")
        return self._tensor(dispatched(experts, self.group, self._members, x, chosen, weights))

    def _attend(self, batch: RaggedBatch, own: RaggedBatch) -> PagedAttention:
        rules, spec = self._program.rules, self.shard.spec
        if self.shard.split:
            return PagedAttention(spec, self._cache, own, None, rules, self._states)
        attend = SequenceAttention(spec, self._cache, own, None, rules, self._states)
        attend.gather = self._gathered
        attend.all_slots = torch.from_numpy(batch.slots).to(self._device, torch.int64)
        return attend

    def _gathered(self, rows: torch.Tensor) -> torch.Tensor:
        return self._tensor(self.group.all_gather(self._numbers(rows), self._members, KEYS, plain=True))

    def _tensor(self, rows: Floats) -> torch.Tensor:
        owned = rows if rows.flags.writeable else rows.copy()
        return torch.from_numpy(owned).to(self._device, self._dtype)

    def _numbers(self, x: torch.Tensor) -> Floats:
        found: Floats = x.float().cpu().numpy()
        return found

    def _own(self, batch: RaggedBatch) -> RaggedBatch:
        """The part of a batch whose hidden states this rank has."""
        if self.shard.split:
            return batch
        start, stop = self._token_bounds(batch)[self.shard.index]
        return cut(batch, start, stop)

    def _token_bounds(self, batch: RaggedBatch) -> list[tuple[int, int]]:
        return bounds(len(batch.token_ids), self.shard.stage.shares)

    def _inputs(self, batch: RaggedBatch) -> Inputs | None:
        if batch.embeddings is None or batch.embedding_rows is None:
            return None
        takers = np.flatnonzero(batch.embedding_rows >= 0)
        rows = batch.embeddings[batch.embedding_rows[takers]]
        return torch.from_numpy(rows).to(self._device), torch.from_numpy(takers).to(self._device)


class SequenceAttention(PagedAttention):
    """Attention of some of a step's tokens to all of them, whose keys and values come from the other ranks.

    Every rank keeps all keys and values, so that any of them can go on with the text.

    Source: Li et al. 2021 (sequence parallelism); keys and values are gathered at once and not in a ring.
    """

    gather: Callable[[torch.Tensor], torch.Tensor]
    all_slots: torch.Tensor

    def __call__(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        """Context [n, H D] of the own heads [n, H + 2K, D]."""
        mixer = attention(self._spec, layer)
        own = heads[:, mixer.heads :]
        rows = self.gather(own.reshape(len(own), 2 * mixer.kv_heads * mixer.head_dim))
        self._cache.write(layer, self.all_slots, rows.view(-1, *own.shape[1:]))
        return super().__call__(layer, heads)


def dispatched(
    experts: RankExperts,
    group: RankGroup,
    members: Sequence[int],
    x: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
) -> Floats:
    """What routed experts give [N, E]: each rank sends its part of the rows to the ranks of their experts.

    A row goes once to a rank, however many of its experts are there. Cost: three collectives a layer and
    rows [E] to and from other ranks for each row and rank that it is routed to.

    Source: DeepSpeed-MoE (Rajbhandari et al. 2022), section 5; ours has no capacity that drops tokens.
    """
    counts = [len(span) for span in spans(experts.record.count, [1.0] * len(members), "experts")]
    owners = torch.repeat_interleave(torch.arange(len(members)), torch.tensor(counts))[chosen]  # [N, k]
    start, stop = bounds(len(x), [1.0] * len(members))[list(members).index(group.rank)]
    mine = torch.arange(start, stop)
    going = [mine[(owners[start:stop] == i).any(1)] for i in range(len(members))]
    rows = group.all_to_all([x[to].float().numpy() for to in going], members, "dispatch")
    routing = [torch.cat((chosen[to].float(), weights[to]), 1).numpy() for to in going]
    routed = group.all_to_all(routing, members, "routing", plain=True)
    k = chosen.shape[1]
    given = []
    for part, route in zip(rows, routed, strict=True):
        came, told = torch.from_numpy(part.copy()).to(x.dtype), torch.from_numpy(route.copy())
        given.append(experts.given(came, told[:, :k].long(), told[:, k:]).numpy())
    total = torch.zeros(stop - start, x.shape[1])
    for to, part in zip(going, group.all_to_all(given, members, "combine"), strict=True):
        total.index_add_(0, to - start, torch.from_numpy(part.copy()))
    return group.all_gather(total.numpy(), members, "experts")
