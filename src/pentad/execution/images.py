"""What makes input embeddings of images, as data: a tower over patches, merged and projected.

Axis letters: N tiles, S pixels of a tile's side, G patches of it, E width of the tower, W width of the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pentad.execution.spec import ModelSpec

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelScale:
    """How bytes of red, green and blue become what a tower reads: (byte * factor - mean) / deviation."""

    factor: float = 1 / 255
    mean: Triple = (0.5, 0.5, 0.5)
    deviation: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTower:
    """A tower over square tiles, each computed by itself (SigLIP behind Idefics3's connector).

    Invariant: a tile's rows depend on its pixels alone.
    """

    spec: ModelSpec
    """Its main stack has a stem over patches, a table of positions and a projector; it looks up no tokens."""
    tile: int
    """Pixels of a tile's side."""
    patch: int
    merged: int
    """Patches in each direction that become one row (pixel shuffle)."""
    pixels: PixelScale

    def __post_init__(self) -> None:
        if self.tile % self.patch or self.grid % self.merged:
            raise ValueError(
                f"tiles of {self.tile} pixels have no patches of {self.patch}, merged by {self.merged}"
            )

    @property
    def grid(self) -> int:
        """Patches of a tile's side."""
        return self.tile // self.patch

    @property
    def rows(self) -> int:
        """Rows that a tile becomes."""
        return (self.grid // self.merged) ** 2

    @property
    def trained_grid(self) -> int:
        """Patches of a side that the table of positions is of."""
        learned = self.spec.learned
        assert learned is not None, "towers have a table of positions"
        return math.isqrt(learned.max_positions)
