"""Confidence intervals of 95%: Wilson's for rates, bootstrap for means and for what is made of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")
_Z = 1.959963984540054
"""The normal quantile of 97.5%."""
Interval = tuple[float, float]


def wilson(successes: int, trials: int) -> Interval:
    """Bounds of a rate, 0 to 1; (0, 1) where nothing was tried.

    Source: Wilson 1927, the score interval without continuity correction.
    """
    if trials == 0:
        return 0.0, 1.0
    rate, square = successes / trials, _Z * _Z
    middle = (rate + square / (2 * trials)) / (1 + square / trials)
    half = _Z * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials**2)) / (1 + square / trials)
    # At the ends the formula is exact, and only rounding would leave 0 to 1.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return low, 1.0 if successes == trials else min(1.0, middle + half)


def bootstrap(values: Sequence[float], *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Bounds of a mean by the percentile bootstrap; the same for the same values and seed.

    Args:
        values: at least one.

    Source: Efron 1979.
    """
    chance = random.Random(seed)
    means = sorted(math.fsum(chance.choices(values, k=len(values))) / len(values) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[math.ceil(0.975 * resamples) - 1]


def paired_bootstrap(
    rows: Sequence[Row],
    statistic: Callable[[Sequence[Row]], float],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Bounds of a statistic of rows by the percentile bootstrap; what a row holds is drawn together.

    So two models that were measured on the same texts are compared text by text.

    Args:
        rows: at least one.

    Source: Efron 1979; the pairing is Koehn 2004, section 4.
    """
    chance = random.Random(seed)
    found = sorted(statistic(chance.choices(rows, k=len(rows))) for _ in range(resamples))
    return found[int(0.025 * resamples)], found[math.ceil(0.975 * resamples) - 1]
