"""Rotary positions in PyTorch: the row order of pairs, and the rotation."""

from __future__ import annotations

import torch

from pentad.execution.rope import inverse_frequencies as rope_frequencies
from pentad.execution.spec import Rope


def inverse_frequencies(rope: Rope) -> torch.Tensor:
    """[dim / 2] radians per position of each pair, in float32."""
    return torch.from_numpy(rope_frequencies(rope))


def half_order(heads: int, head_dim: int, rope: Rope) -> torch.Tensor | None:
    """Row order that brings interleaved pairs apart into halves; None when they lie so already.

    Reordering query and key rows alike leaves every score unchanged, so that the rotation has
    one form. Rows beyond `rope.dim` keep their place.
    """
    if rope.pairing == "half":
        return None
    within = torch.arange(head_dim)
    within[: rope.dim] = torch.cat((torch.arange(0, rope.dim, 2), torch.arange(1, rope.dim, 2)))
    return (torch.arange(heads)[:, None] * head_dim + within).reshape(-1)


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

    def tables(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines of positions [N]: two of [N, 1, dim], shared by all layers."""
        angles = positions.float()[:, None] * self._frequencies
        cos, sin = angles.cos() * self._magnitude, angles.sin() * self._magnitude
        cosines = torch.cat((cos, cos), dim=-1).to(self._dtype).unsqueeze(1)
        sines = torch.cat((-sin, sin), dim=-1).to(self._dtype).unsqueeze(1)
        return cosines, sines

    def turn(self, heads: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Rotates heads [N, h, D] in place."""
        part = heads if heads.shape[-1] == self.dim else heads[..., : self.dim]
        swapped = part.roll(self.dim // 2, -1)
        part.mul_(tables[0]).addcmul_(swapped, tables[1])
