"""Dual chunk attention: rotary positions that never pass what a model was trained with.

Keys are turned by their place in their chunk, queries likewise (rope.py). What a query asks of the chunk in
front and of all earlier ones is the same query turned further, since rotations add up.

    slot      0 ........ s  ........ 2s ........ 3s .... position
    asked by       turned to reach - 1     min(place + s, reach - 1)     place
                   (earlier chunks)        (the chunk before)            (own chunk)
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from pentad.execution.positions import Rope
from pentad.execution.torch.rope import inverse_frequencies

Product = Callable[[torch.Tensor], torch.Tensor]
"""Queries [B, H, T, D] to their products with all keys, [B, H, T, S]."""


class DualRotation:
    """Makes the products of queries with keys in front of their own chunk.

    Args:
        rope: with a record of its chunks.
    """

    def __init__(self, rope: Rope, device: torch.device) -> None:
        assert rope.dual is not None, "only ropes that are cut into chunks need this"
        self._record = rope.dual
        self._dim = rope.dim
        self._frequencies = inverse_frequencies(rope).to(device)

    def products(
        self, queries: torch.Tensor, product: Product, at: torch.Tensor, distances: torch.Tensor
    ) -> torch.Tensor:
        """[B, H, T, S] products of queries [B, H, T, D], which are turned by their place in their chunk.

        Args:
            at: [B or 1, T] positions of the queries.
            distances: [B or 1, T, S] tokens from a query back to a slot.
        """
        length, last = self._record.length, self._record.reach - 1
        places, own = at % length, at // length
        back = own[..., None] - torch.div(at[..., None] - distances, length, rounding_mode="floor")
        found = product(queries)
        farthest = int(back.max())
        if farthest > 0:
            before = product(self._turned(queries, (places + length).clamp(max=last) - places))
            found = torch.where((back == 1)[:, None], before, found)
        if farthest > 1:
            earlier = product(self._turned(queries, last - places))
            found = torch.where((back > 1)[:, None], earlier, found)
        return found

    def _turned(self, queries: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        """Queries [B, H, T, D] turned further by [B or 1, T] positions."""
        angles = (by.float()[..., None] * self._frequencies)[:, None]  # [B or 1, 1, T, dim / 2]
        cos, sin = angles.cos(), angles.sin()
        first, second = queries[..., : self._dim].float().chunk(2, dim=-1)
        rest = queries[..., self._dim :].float()
        return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
