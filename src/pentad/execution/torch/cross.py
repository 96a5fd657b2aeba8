"""Cross-attention: a decoder's tokens read what an encoder has made of their sequence's source.

Keys and values of a source are made once, when it is encoded, and lie in blocks of the KV cache as those of
the decoder's own text do: a layer keeps rows of one shape of both.

    source      [ s0 s1 ... s18 ]   encoder   -> hidden [n, E] -> kv of each layer -> blocks 4, 9
    decoder     [ a b c ]           its own keys and values                        -> block 7
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.batch import RaggedBatch, Sources
from pentad.execution.mixers import Attention
from pentad.execution.positions import Sight
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.groups import Group, block_rows, single_groups
from pentad.execution.torch.linear import Linear


class SourceStep:
    """The sources of a step's sequences, in the groups that are read together. Built once per step."""

    def __init__(self, batch: RaggedBatch, sources: Sources, cache: KVCache) -> None:
        self._batch = batch
        self._sources = sources
        self._cache = cache

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Sequences with one new token together, those with more one by one; each sees its whole source."""
        sources, counts = self._sources, np.diff(self._batch.starts)
        read = dataclasses.replace(self._batch, block_tables=sources.tables, context_lens=sources.lens)
        chunks = (self._chunk(int(i)) for i in np.flatnonzero(counts > 1))
        return (*single_groups(read, self._cache, np.flatnonzero(counts == 1), Sight()), *chunks)

    def _chunk(self, i: int) -> Group:
        start, stop = (int(at) for at in self._batch.starts[i : i + 2])
        length = int(self._sources.lens[i])
        blocks = self._sources.tables[i, : -(-length // self._cache.block_size)]
        return Group(
            rows=slice(start, stop),
            sequences=1,
            blocks=block_rows(blocks, self._cache.device),
            length=length,
            single=False,
            at=np.arange(stop - start),
            first=np.zeros(1, np.int64),
        )

    def read(self, layer: int, group: Group) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [B, K, S, D] of the group's sources."""
        return self._cache.read(layer, group.blocks, group.sequences, group.length)


@runtime_checkable
class SourceAttend(Protocol):
    """Knows the sequences of a step and their sources."""

    @property
    def sources(self) -> SourceStep: ...


def with_sources(attend: object) -> SourceStep:
    """The sources of this step."""
    assert isinstance(attend, SourceAttend), "this step has no sources"
    return attend.sources


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossWeights:
    """The matrices of one layer's cross-attention."""

    record: Attention
    q: Linear
    kv: Linear
    """[2 K D, E] of what the encoder gives: keys, then values."""
    o: Linear

    def kept(self, hidden: torch.Tensor) -> torch.Tensor:
        """Keys and values [n, 2K, D] of the encoder's last states [n, E]."""
        return self.kv(hidden).view(len(hidden), 2 * self.record.kv_heads, self.record.head_dim)

    def given(self, x: torch.Tensor, layer: int, step: SourceStep) -> torch.Tensor:
        """What hidden states [N, E] read of their sources: [N, E]."""
        record = self.record
        queries = self.q(x).view(len(x), record.heads, record.head_dim)
        context = torch.empty_like(queries)
        for group in step.groups:
            keys, values = step.read(layer, group)
            asked = queries[group.rows]  # [B, H, D], or [T, H, D] of one text
            asked = asked.unsqueeze(2) if group.single else asked.transpose(0, 1).unsqueeze(0)
            found = F.scaled_dot_product_attention(
                asked,
                keys,
                values,
                attn_mask=group.mask,
                scale=record.scale,
                enable_gqa=record.kv_heads != record.heads,
            )
            context[group.rows] = found[:, :, 0] if group.single else found[0].transpose(0, 1)
        return self.o(context.flatten(1))
