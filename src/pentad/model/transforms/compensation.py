"""Rounding a matrix column by column, later columns making up for what earlier ones lost."""

from __future__ import annotations

from typing import Final

import numpy as np

from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.rounding.grid import Grid, Scales, nearest, rounded, spread

_LAZY: Final = 128
"""Columns whose errors are brought to the rest of the matrix together."""


def round_compensated(
    grid: Grid, values: Floats, factor: Floats, weights: Floats, *, search: bool, kept: int = 0
) -> tuple[Bytes, Floats]:
    """The blocks [out, bytes] that a matrix [out, in] becomes, and their values.

    A block's scales are chosen when its first column is reached, for the values as they then are.

    Args:
        factor: see hessian.inverse_factor.
        weights: what the squared error of each column counts, [in].
        kept: how many of the last columns are not rounded and only make up for others.

    Source: Frantar et al., "GPTQ", ICLR'23, algorithm 1. Our difference: the grid is any of a format's
    blocks, and its scales are searched.
    """
    left = values.copy()
    rows, columns = left.shape
    out = np.empty_like(left)
    packed: list[Bytes] = []
    step = max(_LAZY // grid.elements, 1) * grid.elements
    for start in range(0, columns - kept, step):
        stop = min(start + step, columns - kept)
        errors = np.zeros((rows, stop - start), np.float32)
        for at in range(start, stop, grid.elements):
            end = at + grid.elements
            scales = grid.fit(np.ascontiguousarray(left[:, at:end]), weights[None, at:end], search=search)
            index = _block(grid, left, out, errors, factor, scales, at, start, stop)
            packed.append(grid.pack(index, scales))
        if stop < columns:
            left[:, stop:] -= errors @ factor[start:stop, stop:]
    out[:, columns - kept :] = left[:, columns - kept :]
    return np.concatenate(packed, axis=1), out


def _block(
    grid: Grid,
    left: Floats,
    out: Floats,
    errors: Floats,
    factor: Floats,
    scales: Scales,
    at: int,
    start: int,
    stop: int,
) -> Bytes:
    """Rounds one block's columns of all rows; their errors go to the columns up to `stop`."""
    index = np.empty((len(left), grid.elements), np.uint8)
    scale = spread(scales.scale, grid.elements)
    offset = None if scales.offset is None else spread(scales.offset, grid.elements)
    for i in range(grid.elements):
        column = at + i
        shift = None if offset is None else offset[:, i]
        index[:, i] = nearest(grid.levels, left[:, column], scale[:, i], shift)
        number = grid.levels[index[:, i]] * scale[:, i]
        out[:, column] = number if shift is None else number + shift
        error = (left[:, column] - out[:, column]) / factor[column, column]
        errors[:, column - start] = error
        if column + 1 < stop:
            left[:, column + 1 : stop] -= error[:, None] * factor[column, column + 1 : stop]
    return index


def round_plain(grid: Grid, values: Floats, weights: Floats | None, *, search: bool) -> tuple[Bytes, Floats]:
    """As `round_compensated`, each number for itself."""
    rows, columns = values.shape
    blocks = np.ascontiguousarray(values).reshape(-1, grid.elements)
    if weights is not None:
        by_block = weights.reshape(-1, grid.elements)
        weights = np.tile(by_block, (rows, 1))
    scales = grid.fit(blocks, weights, search=search)
    index, numbers = rounded(grid, blocks, scales)
    return grid.pack(index, scales).reshape(rows, -1), numbers.reshape(rows, columns)
