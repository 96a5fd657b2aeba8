"""Scales of least weighted error for parts of numbers, each part a row: [n, size].

Source: the searches of llama.cpp's quantizers (`make_qx_quants`, `make_qkx2_quants` of ggml-quants.c):
try scales near the one that reaches the largest number, solve the weighted least squares for each, keep the
best. Our difference: any levels, all parts at once, and the error itself decides.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pentad.execution.formats.base import Floats
from pentad.execution.rounding.grid import nearest_level

_TINY: Final = 1e-30
_AT_ONCE: Final = 1 << 18
"""Numbers looked at together, so that they stay in a processor's cache."""
_STEPS: Final = 9
"""Tried on each side of the plain scale."""


def symmetric(levels: Floats, values: Floats, weights: Floats | None, *, search: bool) -> Floats:
    """Scales [n, 1] for numbers `level * scale`: the number of largest magnitude reaches the lowest level."""
    if not search:
        plain: Floats = _top(values) / levels[_far(levels)]
        return plain
    found = [_symmetric(levels, *part) for part in _parts(values, weights)]
    return np.concatenate(found)


def with_offset(
    levels: Floats, values: Floats, weights: Floats | None, *, search: bool, below_zero: bool
) -> tuple[Floats, Floats]:
    """Scales and offsets [n, 1] for numbers `level * scale + offset`, levels from 0 on.

    Args:
        below_zero: whether an offset may not be above 0, as k-quants store it.
    """
    found = [_with_offset(levels, *part, search, below_zero) for part in _parts(values, weights)]
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def _parts(values: Floats, weights: Floats | None) -> list[tuple[Floats, Floats]]:
    rows = max(1, _AT_ONCE // values.shape[1])
    if weights is None:  # as ggml weighs without an importance: large numbers more
        weights = values * values + np.float32(_TINY)
    weights = np.broadcast_to(weights, values.shape)
    starts = range(0, len(values), rows)
    return [(values[at : at + rows], weights[at : at + rows]) for at in starts]


def _far(levels: Floats) -> int:
    """Which end lies farther from 0."""
    return 0 if -levels[0] >= levels[-1] else -1


def _top(values: Floats) -> Floats:
    return np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)


def _symmetric(levels: Floats, values: Floats, weights: Floats) -> Floats:
    end = float(levels[_far(levels)])
    top = _top(values)
    best = top / np.float32(end)
    weighted = weights * values
    gain = np.full_like(best, -1.0)
    inner = abs(end) if len(levels) > 64 else abs(end) / 8
    for step in range(-_STEPS, _STEPS + 1):
        reached = np.float32(end + np.sign(end) * step * inner * (0.1 if len(levels) <= 64 else 0.002))
        inverse = np.divide(reached, top, out=np.zeros_like(top), where=np.abs(top) > _TINY)
        numbers = levels[nearest_level(levels, values * inverse)]
        cross = np.einsum("ij,ij->i", weighted, numbers)[:, None]
        square = np.einsum("ij,ij,ij->i", weights, numbers, numbers)[:, None]
        scale = np.divide(cross, square, out=np.zeros_like(cross), where=square > _TINY)
        better = cross * scale > gain
        gain = np.where(better, cross * scale, gain)
        best = np.where(better, scale, best)
    return best


def _with_offset(
    levels: Floats, values: Floats, weights: Floats, search: bool, below_zero: bool
) -> tuple[Floats, Floats]:
    high = np.float32(levels[-1])
    low = values.min(axis=1, keepdims=True)
    if below_zero:
        low = np.minimum(low, 0)
    span = np.maximum(values.max(axis=1, keepdims=True) - low, _TINY)
    best, offset = span / high, low
    if not search:
        return best.astype(np.float32), offset.astype(np.float32)
    sum_w = weights.sum(axis=1, keepdims=True) + np.float32(_TINY)
    weighted = weights * values
    sum_x = weighted.sum(axis=1, keepdims=True)
    least = np.full_like(best, np.inf)
    for step in range(-_STEPS, 2 * _STEPS + 1, 1):
        inverse = (high + np.float32(0.1 * step * high / 15)) / span
        numbers = levels[nearest_level(levels, (values - low) * inverse)]
        of_numbers = weights * numbers
        sum_l = of_numbers.sum(axis=1, keepdims=True)
        sum_ll = np.einsum("ij,ij->i", of_numbers, numbers)[:, None]
        sum_xl = np.einsum("ij,ij->i", of_numbers, values)[:, None]
        scale, shift = _line(sum_w, sum_l, sum_ll, sum_x, sum_xl)
        if below_zero:
            alone = np.divide(sum_xl, sum_ll, out=np.zeros_like(sum_xl), where=sum_ll > _TINY)
            scale, shift = np.where(shift > 0, alone, scale), np.minimum(shift, 0)
        # The weighted error but for the sum of squares of the values, which all candidates share.
        error = (
            scale * scale * sum_ll
            + shift * shift * sum_w
            + 2 * (scale * shift * sum_l - scale * sum_xl - shift * sum_x)
        )
        better = (error < least) & (scale > 0)
        least = np.where(better, error, least)
        best, offset = np.where(better, scale, best), np.where(better, shift, offset)
    return best.astype(np.float32), offset.astype(np.float32)


def _line(
    sum_w: Floats, sum_l: Floats, sum_ll: Floats, sum_x: Floats, sum_xl: Floats
) -> tuple[Floats, Floats]:
    """Slope and intercept of the weighted least squares; slope 0 where all levels are one."""
    wide = sum_w.astype(np.float64)
    determinant = wide * sum_ll - np.square(sum_l, dtype=np.float64)
    safe = determinant > 1e-12 * wide * np.maximum(sum_ll, _TINY)
    divisor = np.where(safe, determinant, 1)
    slope = np.where(safe, (wide * sum_xl - sum_x * sum_l.astype(np.float64)) / divisor, 0)
    return slope.astype(np.float32), ((sum_x - slope * sum_l) / wide).astype(np.float32)
