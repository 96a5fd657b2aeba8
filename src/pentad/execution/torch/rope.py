"""Rotary positions in PyTorch: the row order of pairs, and the rotation."""

from __future__ import annotations

import torch

from pentad.execution import rope as rope_rows
from pentad.execution.positions import Growth
from pentad.execution.spec import Rope


def inverse_frequencies(rope: Rope) -> torch.Tensor:
    """[dim / 2] radians per position of each pair, in float32."""
    return torch.from_numpy(rope_rows.inverse_frequencies(rope))


def half_order(heads: int, head_dim: int, rope: Rope) -> torch.Tensor | None:
    """See execution.rope."""
    order = rope_rows.half_order(heads, head_dim, rope)
    return None if order is None else torch.from_numpy(order)


def grown(record: Growth, positions: torch.Tensor) -> torch.Tensor:
    """[N, 1, 1] factors of queries at positions [N], in float32."""
    stretch = (positions.float() + record.offset) / record.period
    grows = torch.log1p(stretch.floor()) if record.steps else stretch.clamp(min=1).log()
    return (1 + record.weight * grows)[:, None, None]


class Rotation:
    """Turns queries and keys by their positions.

    The rotation of a pair (a, b) by t is (a cos t - b sin t, b cos t + a sin t): with the halves
    swapped and the sine's sign folded into its table, three operations for the whole row.
    """

    def __init__(self, rope: Rope, dtype: torch.dtype, device: torch.device) -> None:
        self.dim = rope.dim
        self._frequencies = inverse_frequencies(rope).to(device)
        self._dtype = dtype
        self._magnitude = rope.scaling.magnitude if rope.scaling is not None else 1.0
        self._chunk = None if rope.dual is None else rope.dual.length

    def tables(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines of positions [N]: two of [N, 1, dim], shared by all layers."""
        if self._chunk is not None:  # places in chunks; dual_chunks.py turns queries further
            positions = positions % self._chunk
        angles = positions.float()[:, None] * self._frequencies
        cos, sin = angles.cos() * self._magnitude, angles.sin() * self._magnitude
        cosines = torch.cat((cos, cos), dim=-1).to(self._dtype).unsqueeze(1)
        sines = torch.cat((-sin, sin), dim=-1).to(self._dtype).unsqueeze(1)
        return cosines, sines

    def turn(self, heads: torch.Tensor, tables: tuple[torch.Tensor, ...]) -> None:
        """Rotates heads [N, h, D] in place."""
        part = heads if heads.shape[-1] == self.dim else heads[..., : self.dim]
        swapped = part.roll(self.dim // 2, -1)
        part.mul_(tables[0]).addcmul_(swapped, tables[1])
