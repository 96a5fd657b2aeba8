"""The KV cache: rows of blocks per layer; a block holds P slots, a slot what its layer keeps of one token:

    [num_blocks, P, 2, K, D]        gather: whole blocks by number        write: slots by index

so that one index operation writes a step and one gathers a batch, keys and values together. With latent
attention a slot is one key, whose first numbers serve as value. Layers that keep nothing take no room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from pentad.execution.batch import Int32
from pentad.execution.mixers import CacheRow
from pentad.execution.spec import ModelSpec

Rows: TypeAlias = slice | torch.Tensor


class KVCache:
    """What all layers keep of tokens in numbered blocks, in the compute precision.

    Address space is reserved at once; on a CPU the system provides a page when it is first written.
    With `scratch` there is one block more than `num_blocks`, which no sequence ever holds: the rows
    that pad a decode step write there. With `scored` there is a sum per slot and KV head of the attention
    that it has had. Entries of single heads, and scores, are had of models whose layers all keep alike.
    """

    def __init__(
        self,
        spec: ModelSpec,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        scratch: bool = False,
        scored: bool = False,
    ) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.dtype = dtype
        self.device = device
        self.scratch_block = num_blocks if scratch else None
        self._total_blocks = num_blocks + scratch
        self._kept = tuple(block.cache_row for block in spec.blocks)
        kinds = [row for row in dict.fromkeys(self._kept) if row is not None]
        self._stores = tuple(self._store(self._kept.count(row), row) for row in kinds)
        """Layers that keep alike, [layers of the kind, blocks, P, elements]."""
        places = {row: iter(store) for row, store in zip(kinds, self._stores, strict=True)}
        self._layers = tuple(None if row is None else next(places[row]) for row in self._kept)
        self._rows = torch.empty(0, dtype=dtype, device=device)
        self._kv_heads = 0
        if self.by_head and (row := self._kept[0]) is not None:
            self._rows = self._stores[0].view(-1, row.key_dim)
            self._kv_heads = row.heads
        self.scores: torch.Tensor | None = None
        """[L * blocks * P * K] attention by slot; None where none is counted."""
        if scored:
            assert self.by_head, "attention is counted of heads that keep alike"
            self.scores = torch.zeros(len(self._rows) // 2, dtype=torch.float64, device=device)

    def _store(self, layers: int, row: CacheRow) -> torch.Tensor:
        shape = (layers, self._total_blocks, self.block_size, row.elements)
        if self.device.type == "cpu":
            kind = np.uint16 if self.dtype.itemsize == 2 else np.uint32
            return torch.from_numpy(np.zeros(shape, kind)).view(self.dtype)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    @property
    def by_head(self) -> bool:
        """Whether every layer keeps keys and values of equal heads, so that entries move between them."""
        first = self._kept[0]
        alike = first is not None and len(set(self._kept)) == 1
        return alike and first is not None and not first.shared and first.key_dim == first.value_dim

    @property
    def nbytes(self) -> int:
        return sum(int(store.nbytes) for store in self._stores)

    def layer(self, layer: int) -> torch.Tensor:
        """The blocks of one layer of keys and values, [blocks, P, 2, K, D]."""
        row = self._kept[layer]
        assert row is not None and not row.shared, f"layer {layer} keeps no keys and values"  # noqa: PT018
        return self._of(layer).view(self._total_blocks, self.block_size, 2, row.heads, row.key_dim)

    def _of(self, layer: int) -> torch.Tensor:
        found = self._layers[layer]
        assert found is not None, f"layer {layer} keeps nothing of tokens"
        return found

    def write(self, layer: int, slots: torch.Tensor, kept: torch.Tensor) -> None:
        """Stores rows [N, 2K, D], or [N, 1, D] of a layer that keeps keys alone, at slots [N]."""
        self._of(layer).flatten(0, 1).index_copy_(0, slots, kept.flatten(1))

    def clear_begun(self, slots: Int32) -> None:
        """Zeros the blocks whose first slot is among those that are about to be written.

        What is not written yet has no weight, but another sequence may have left NaN there, and 0 times
        NaN is NaN.
        """
        begun = slots[slots % self.block_size == 0] // self.block_size
        if len(begun):
            blocks = torch.from_numpy(begun.astype(np.int64)).to(self.device)
            for store in self._stores:
                store.index_fill_(1, blocks, 0)

    def read(
        self, layer: int, blocks: Rows, sequences: int, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [B, K, S, D] of B sequences whose blocks are listed end to end."""
        rows, row = self._of(layer).flatten(1), self._kept[layer]
        assert row is not None
        found = rows[blocks] if isinstance(blocks, slice) else rows.index_select(0, blocks)
        if row.shared:
            keys = found.view(sequences, -1, row.heads, row.key_dim)[:, :length].transpose(1, 2)
            return keys, keys[..., : row.value_dim]
        both = found.view(sequences, -1, 2, row.heads, row.key_dim)[:, :length]
        return both[:, :, 0].transpose(1, 2), both[:, :, 1].transpose(1, 2)

    def copy(self, source: int, target: int) -> None:
        """Copies one block over all layers."""
        for store in self._stores:
            store[:, target].copy_(store[:, source])
        if self.scores is not None:
            scores = self.scores.view(len(self._layers), self._total_blocks, -1)
            scores[:, target].copy_(scores[:, source])

    def entry_rows(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows [D] in which the keys of entries lie, and K rows further their values.

        An entry is `page * block_size + place`, a page being one head's part of a block.
        """
        pages, at = np.divmod(entries, self.block_size)
        blocks, heads = np.divmod(pages, len(self._layers) * self._kv_heads)
        layers, kv_heads = np.divmod(heads, self._kv_heads)
        slots = (layers * self._total_blocks + blocks) * self.block_size + at
        rows: npt.NDArray[np.int64] = slots * 2 * self._kv_heads + kv_heads
        return rows

    def read_entries(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [..., D] of entries whose keys lie in these rows."""
        return self._rows[rows], self._rows[rows + self._kv_heads]

    def write_entries(self, rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Stores new entries [..., D], which nothing has attended to yet."""
        self._rows[rows] = keys
        self._rows[rows + self._kv_heads] = values
        self.clear_scores(rows)

    def move_entries(self, moves: npt.NDArray[np.int64]) -> None:
        """Copies entries [n, 2], source and target; all are read before any is written."""
        rows = torch.from_numpy(self.entry_rows(moves)).to(self.device)
        sources, targets = torch.cat((rows, rows + self._kv_heads)).unbind(1)
        self._rows[targets] = self._rows[sources]
        if self.scores is not None:
            sources, targets = self._score_places(rows).unbind(1)
            self.scores[targets] = self.scores[sources]

    def _score_places(self, rows: torch.Tensor) -> torch.Tensor:
        """Where the attention is counted of entries whose keys lie in these rows."""
        slots, heads = rows // (2 * self._kv_heads), rows % (2 * self._kv_heads)
        return slots * self._kv_heads + heads

    def clear_scores(self, rows: torch.Tensor) -> None:
        """Forgets what was counted of entries, if anything is."""
        if self.scores is not None:
            self.scores[self._score_places(rows)] = 0.0

    def add_scores(self, rows: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds attention weights to entries; an entry may be named several times."""
        assert self.scores is not None, "no attention is counted"
        self.scores.index_add_(0, self._score_places(rows).reshape(-1), weights.double().reshape(-1))

    def page_scores(self, pages: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """[n, P] what was counted of pages [n]."""
        assert self.scores is not None, "no attention is counted"
        entries = pages.astype(np.int64)[:, None] * self.block_size + np.arange(self.block_size)
        rows = torch.from_numpy(self.entry_rows(entries)).to(self.device)
        found: npt.NDArray[np.float64] = self.scores[self._score_places(rows)].cpu().numpy()
        return found

    def copy_slots(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies single slots over all layers."""
        at = torch.tensor([*sources, *targets], device=self.device).split(len(sources))
        for store in self._stores:
            slots = store.flatten(1, 2)  # [layers, slots, elements], a view
            slots.index_copy_(1, at[1], slots.index_select(1, at[0]))
        if self.scores is not None:
            scores = self.scores.view(len(self._layers), -1, self._kv_heads)
            scores.index_copy_(1, at[1], scores.index_select(1, at[0]))
