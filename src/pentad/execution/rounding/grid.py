"""Grid: the numbers that the blocks of a format can hold, for whoever rounds onto them.

A row is cut into blocks of `elements` numbers, a block into parts that share a scale. A number of a
part is `level * scale + offset`; which level, is its index. Who rounds asks in this order:

    scales = grid.fit(values, weights)      once for each block
    index = grid.nearest(values, scales)    for all numbers at once, or column by column
    data = grid.pack(index, scales)         the bytes of the blocks

so that a method may change numbers between the choice of scales and their rounding (GPTQ).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.weights import TensorFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """How levels become numbers in some blocks, as the format will hold it."""

    scale: Floats
    """[n, parts]"""
    offset: Floats | None = None
    """[n, parts]; None stands for 0."""
    head: Bytes | None = None
    """What a block keeps of them: [n, bytes]; None where numbers are stored whole."""

    def rows(self, chosen: slice) -> Scales:
        """Those of some blocks."""
        offset = None if self.offset is None else self.offset[chosen]
        head = None if self.head is None else self.head[chosen]
        return Scales(scale=self.scale[chosen], offset=offset, head=head)


class Grid(Protocol):
    """What a format can hold. Blocks are rows here: values [n, elements]."""

    @property
    def format(self) -> TensorFormat:
        """What the blocks are stored in."""
        ...

    @property
    def elements(self) -> int: ...

    @property
    def parts(self) -> int: ...

    @property
    def levels(self) -> Floats:
        """In order, the lowest first."""
        ...

    @property
    def bits(self) -> float:
        """Of a number, scales included, if codes are packed without gaps."""
        ...

    def fit(self, values: Floats, weights: Floats | None, *, search: bool) -> Scales:
        """Scales for blocks of these values.

        Args:
            weights: what the squared error of each number counts, [n, elements] or [1, elements];
                None: all the same.
            search: look for the scales of least weighted error, instead of taking those that reach
                the largest number.
        """
        ...

    def pack(self, index: Bytes, scales: Scales) -> Bytes:
        """The blocks' bytes [n, bytes] of level indices [n, elements]."""
        ...


def spread(of_parts: Floats, elements: int) -> Floats:
    """What parts have [n, parts], for each number: [n, elements]."""
    return np.repeat(of_parts, elements // of_parts.shape[1], axis=1)


def nearest(levels: Floats, values: Floats, scale: Floats, offset: Floats | None) -> Bytes:
    """The index of the level that lies nearest to each value; scales have the values' shape."""
    shifted = values if offset is None else values - offset
    scaled = np.divide(shifted, scale, out=np.zeros_like(values), where=np.abs(scale) > 1e-30)
    return nearest_level(levels, scaled)


def nearest_level(levels: Floats, scaled: Floats) -> Bytes:
    """The index of the level nearest to each number."""
    low, high = float(levels[0]), float(levels[-1])
    if high - low == len(levels) - 1:  # whole numbers without gaps
        return (np.clip(np.rint(scaled), low, high) - low).astype(np.uint8)
    middles = (levels[1:] + levels[:-1]) / 2
    return np.searchsorted(middles, scaled).astype(np.uint8)


def rounded(grid: Grid, values: Floats, scales: Scales) -> tuple[Bytes, Floats]:
    """Index and number that each value [n, elements] becomes."""
    scale = spread(scales.scale, grid.elements)
    offset = None if scales.offset is None else spread(scales.offset, grid.elements)
    index = nearest(grid.levels, values, scale, offset)
    numbers: Floats = grid.levels[index] * scale
    if offset is not None:
        numbers += offset
    return index, numbers


def whole_numbers(low: int, high: int) -> Floats:
    """The levels from one to the other."""
    return np.arange(low, high + 1, dtype=np.float32)


Index = npt.NDArray[np.uint8]
