"""TileRecipe: how an image becomes square tiles, as a model's `preprocessor_config.json` says.

All of it is arithmetic on sizes; pixels are touched by image_worker.py alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from pentad.execution.images import PixelScale
from pentad.model.files.fields import Fields

Size = tuple[int, int]
"""Width and height in pixels."""
_LONGEST: Final = 4096
"""An image's longer side, whatever a recipe says."""
LOW: Final = "low"
"""Of a part's `detail`: the image as one tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """What is to be done with one image."""

    sizes: tuple[Size, ...]
    """It is resized to one after the other."""
    rows: int
    """Rows of tiles; 0: the image is one tile."""
    columns: int
    tile: int
    resampling: int
    """A filter's number in Pillow."""

    @property
    def count(self) -> int:
        """Tiles, the one of the whole image included."""
        return self.rows * self.columns + 1

    @property
    def boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Left, upper, right and lower edges of the tiles that are cut out, row by row."""
        side = self.tile
        corners = [(c * side, r * side) for r in range(self.rows) for c in range(self.columns)]
        return tuple((x, y, x + side, y + side) for x, y in corners or [(0, 0)])

    @property
    def whole(self) -> Size | None:
        """The size of a last tile that shows the whole image, where others show its parts."""
        return (self.tile, self.tile) if self.rows else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRecipe:
    """Sizes and scales of one model (Idefics3).

    Source: Laurencon et al. 2024 (Idefics3); the rounding is that of its published processor.
    """

    longest: int
    """What an image's longer side is brought to."""
    tile: int
    splits: bool = True
    resampling: int = 1
    pixels: PixelScale

    def plan(self, width: int, height: int, detail: str | None = None) -> TilePlan:
        """What is done with an image of that size.

        Args:
            detail: `low` shows it as one tile.
        """
        size = _bounded(_scaled(width, height, self.longest))
        if not self.splits or detail == LOW:
            return self._plan((size, (self.tile, self.tile)), 0, 0)
        width, height = self._whole_tiles(*size)
        if width <= self.tile and height <= self.tile:
            return self._plan((size, (width, height)), 0, 0)
        return self._plan((size, (width, height)), height // self.tile, width // self.tile)

    def _plan(self, sizes: tuple[Size, ...], rows: int, columns: int) -> TilePlan:
        return TilePlan(sizes=sizes, rows=rows, columns=columns, tile=self.tile, resampling=self.resampling)

    def _whole_tiles(self, width: int, height: int) -> Size:
        """The next larger size of whole tiles: first the longer side, then the other at its share of it."""
        ratio = width / height
        if width >= height:
            width = self._up(width)
            return width, self._up(int(width / ratio))
        height = self._up(height)
        return self._up(int(height * ratio)), height

    def _up(self, pixels: int) -> int:
        return ceil(pixels / self.tile) * self.tile


def _scaled(width: int, height: int, longest: int) -> Size:
    """The longer side brought to `longest`, the other at its share, made even upwards."""
    ratio = width / height
    if width >= height:
        return longest, max(1, _even(int(longest / ratio)))
    return max(1, _even(int(longest * ratio))), longest


def _even(pixels: int) -> int:
    return pixels + pixels % 2


def _bounded(size: Size) -> Size:
    """No side above what any recipe may ask for."""
    width, height = size
    ratio = width / height
    if width >= height and width > _LONGEST:
        return _LONGEST, max(1, int(_LONGEST / ratio))
    if height > width and height > _LONGEST:
        return max(1, int(_LONGEST * ratio)), _LONGEST
    return size


def recipe_of(settings: Fields) -> TileRecipe:
    """The recipe of a `preprocessor_config.json`. Raises BadModelFile for a step that is not done here."""
    for step in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if not settings.flag(step, True):
            settings.fail(step, "is false; images are always resized, scaled and normalised in RGB")
    most = settings.table("max_image_size").integer("longest_edge", 364, low=1, high=_LONGEST)
    mean, deviation = (
        settings.numbers(key, 3) if settings.has(key) else (0.5, 0.5, 0.5)
        for key in ("image_mean", "image_std")
    )
    return TileRecipe(
        longest=settings.table("size").integer("longest_edge", 4 * most, low=1, high=_LONGEST * 4),
        tile=most,
        splits=settings.flag("do_image_splitting", True),
        resampling=settings.integer("resample", 1, high=5),
        pixels=PixelScale(
            factor=settings.number("rescale_factor", 1 / 255),
            mean=(mean[0], mean[1], mean[2]),
            deviation=(deviation[0], deviation[1], deviation[2]),
        ),
    )
