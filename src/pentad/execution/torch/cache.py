"""The KV cache: rows of blocks per layer; a block holds P slots, a slot one token's keys and values:

    [num_blocks, P, 2, K, D]        gather: whole blocks by number        write: slots by index

so that one index operation writes a step and one gathers a batch, keys and values together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from pentad.execution.batch import Int32
from pentad.execution.spec import ModelSpec

Rows: TypeAlias = slice | torch.Tensor


class KVCache:
    """Keys and values of all layers in numbered blocks, in the compute precision.

    Address space is reserved at once; on a CPU the system provides a page when it is first written.
    With `scratch` there is one block more than `num_blocks`, which no sequence ever holds: the rows
    that pad a decode step write there. With `scored` there is a sum per slot and KV head of the attention
    that it has had.
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
        blocks = num_blocks + scratch
        shape = (spec.layers, blocks, block_size, 2, spec.kv_heads, spec.head_dim)
        if device.type == "cpu":
            kind = np.uint16 if dtype.itemsize == 2 else np.uint32
            self._data = torch.from_numpy(np.zeros(shape, kind)).view(dtype)
        else:
            self._data = torch.zeros(shape, dtype=dtype, device=device)
        self._blocks = tuple(self._data.view(spec.layers, blocks, -1))
        self._slots = tuple(self._data.view(spec.layers, blocks * block_size, -1))
        self._rows = self._data.view(-1, spec.head_dim)
        self._kv_heads = spec.kv_heads
        self._total_blocks = blocks
        self.scores: torch.Tensor | None = None
        """[L * blocks * P * K] attention by slot; None where none is counted."""
        if scored:
            self.scores = torch.zeros(len(self._rows) // 2, dtype=torch.float64, device=device)
        self._slot_shape = (2, spec.kv_heads, spec.head_dim)

    @property
    def nbytes(self) -> int:
        return int(self._data.nbytes)

    def layer(self, layer: int) -> torch.Tensor:
        """The blocks of one layer, [blocks, P, 2, K, D]."""
        return self._data[layer]

    def write(self, layer: int, slots: torch.Tensor, keys_values: torch.Tensor) -> None:
        """Stores rows [N, 2K, D] at slots [N]."""
        self._slots[layer].index_copy_(0, slots, keys_values.flatten(1))

    def clear_begun(self, slots: Int32) -> None:
        """Zeros the blocks whose first slot is among those that are about to be written.

        What is not written yet has no weight, but another sequence may have left NaN there, and 0 times
        NaN is NaN.
        """
        begun = slots[slots % self.block_size == 0] // self.block_size
        if len(begun):
            self._data.index_fill_(1, torch.from_numpy(begun.astype(np.int64)).to(self.device), 0)

    def read(
        self, layer: int, blocks: Rows, sequences: int, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [B, K, S, D] of B sequences whose blocks are listed end to end."""
        rows = self._blocks[layer]
        found = rows[blocks] if isinstance(blocks, slice) else rows.index_select(0, blocks)
        both = found.view(sequences, -1, *self._slot_shape)[:, :length]
        return both[:, :, 0].transpose(1, 2), both[:, :, 1].transpose(1, 2)

    def copy(self, source: int, target: int) -> None:
        """Copies one block over all layers."""
        self._data[:, target].copy_(self._data[:, source])
        if self.scores is not None:
            scores = self.scores.view(len(self._data), self._total_blocks, -1)
            scores[:, target].copy_(scores[:, source])

    def entry_rows(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows [D] in which the keys of entries lie, and K rows further their values.

        An entry is `page * block_size + place`, a page being one head's part of a block.
        """
        pages, at = np.divmod(entries, self.block_size)
        blocks, heads = np.divmod(pages, len(self._data) * self._kv_heads)
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
        slots = self._data.flatten(1, 2)  # [L, slots, 2, K, D], a view
        slots.index_copy_(1, at[1], slots.index_select(1, at[0]))
        if self.scores is not None:
            scores = self.scores.view(len(self._data), -1, self._kv_heads)
            scores.index_copy_(1, at[1], scores.index_select(1, at[0]))
