"""Least squares with non-negative coefficients: costs are sums of terms that never give time back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def non_negative_least_squares(a: Floats, b: Floats) -> Floats:
    """The x >= 0 that minimises |a x - b|; a [rows, columns], b [rows].

    Columns are scaled to unit length first, so their units do not matter; a zero column gets 0.

    Source: Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23.
    """
    length = np.linalg.norm(a, axis=0)
    usable = length > 0
    scaled = a[:, usable] / length[usable]
    columns = scaled.shape[1]
    x = np.zeros(columns)
    passive = np.zeros(columns, dtype=bool)
    tolerance = 1e-10 * max(1.0, float(np.linalg.norm(b)))
    for _ in range(10 * columns + 10):
        gradient = scaled.T @ (b - scaled @ x)
        gradient[passive] = -np.inf
        if passive.all() or gradient.max() <= tolerance:
            break
        passive[int(np.argmax(gradient))] = True
        while True:
            solution = np.zeros(columns)
            solution[passive] = np.linalg.lstsq(scaled[:, passive], b, rcond=None)[0]
            if (solution[passive] > 0).all():
                x = solution
                break
            # Walk towards the solution until the first coefficient reaches 0, and fix it there.
            falling = passive & (solution <= 0)
            step = np.min(x[falling] / (x[falling] - solution[falling]))
            x = np.where(passive, x + step * (solution - x), 0.0)
            passive &= x > tolerance * 1e-3
            x[~passive] = 0.0
    full = np.zeros(a.shape[1])
    full[usable] = x / length[usable]
    return full
