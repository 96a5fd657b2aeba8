"""How much longer something takes that has lasted a while, from how long such things took."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def mean_residual_s(known: Sequence[float], elapsed_s: float) -> float:
    """Seconds that are left on average of those that lasted longer than `elapsed_s`.

    One that has outlasted all is expected to take as long again, as such times have heavy tails.

    Args:
        known: what such things took, the shortest first.

    Source: mean residual life of survival analysis.
    """
    longer = known[bisect_right(known, elapsed_s) :]
    return sum(longer) / len(longer) - elapsed_s if longer else elapsed_s
