"""The part of scores that a projection of distances gives (Transformer-XL): (q + v) W r of each distance."""

from __future__ import annotations

import torch

from pentad.execution.positions import ProjectedDistances


class DistanceScores:
    """One layer's. W r is made once for each distance, for more of them as texts grow.

    Distances back to slots of the past are not negative; where a text is read both ways, those ahead are.
    """

    def __init__(
        self,
        *,
        record: ProjectedDistances,
        matrix: torch.Tensor,
        content: torch.Tensor,
        distance: torch.Tensor,
    ) -> None:
        """`matrix` is W [H D, E]; `content` and `distance` are u and v [H, D]; all in float32."""
        self._record = record
        self._matrix = matrix
        self.content = content
        self._shift = distance
        self._most = -1
        self._table = matrix.new_empty(0)

    def __call__(self, queries: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
        """What is added to products [B, H, T, S] of queries [B, H, T, D], in float32.

        Args:
            distances: [B or 1, T, S] tokens from a query back to a slot.
        """
        texts, heads, tokens, _ = queries.shape
        self._reach(int(distances.abs().max()))
        by_distance = (queries + self._shift[:, None]) @ self._table.transpose(1, 2)  # [B, H, T, 2 most + 1]
        index = (distances + self._most)[:, None].expand(texts, heads, tokens, -1)
        return by_distance.gather(-1, index.long())

    def _reach(self, most: int) -> None:
        """Makes the table [H, 2 most + 1, D] of distances from -most to most, twice as far as it was."""
        if most <= self._most:
            return
        self._most = max(most, 2 * self._most)
        at = torch.arange(-self._most, self._most + 1, device=self._matrix.device)
        rows = sinusoids(at, self._matrix.shape[1], self._record.base) @ self._matrix.t()
        self._table = rows.view(len(at), *self.content.shape).transpose(0, 1)


def sinusoids(at: torch.Tensor, width: int, base: float) -> torch.Tensor:
    """[n, E] sines, then cosines, of distances [n] by wavelengths that grow geometrically."""
    frequencies = base ** (-torch.arange(0, width, 2, device=at.device).float() / width)
    angles = at.float()[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
