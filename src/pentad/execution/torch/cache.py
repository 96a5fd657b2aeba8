"""The KV cache: rows of blocks per layer; a block holds P slots, a slot one token's keys and values:

    [num_blocks, P, 2, K, D]        gather: whole blocks by number        write: slots by index

so that one index operation writes a step and one gathers a batch, keys and values together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from pentad.execution.batch import Int32
from pentad.execution.spec import ModelSpec

Rows: TypeAlias = slice | torch.Tensor


class KVCache:
    """Keys and values of all layers in numbered blocks, in the compute precision.

    Address space is reserved at once; on a CPU the system provides a page when it is first written.
    With `scratch` there is one block more than `num_blocks`, which no sequence ever holds: the rows
    that pad a decode step write there.
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

    def copy_slots(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies single slots over all layers."""
        at = torch.tensor([*sources, *targets], device=self.device).split(len(sources))
        slots = self._data.flatten(1, 2)  # [L, slots, 2, K, D], a view
        slots.index_copy_(1, at[1], slots.index_select(1, at[0]))
