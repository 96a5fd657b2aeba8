"""How soon a worker that died is started again."""

from __future__ import annotations

from dataclasses import dataclass, field

HEALTHY_S = 60.0
"""A worker that lived so long starts with a clean slate."""


@dataclass(slots=True)
class Restarts:
    """Counts deaths: the first is mended at once, more of them in a row after a pause that doubles.

    Args:
        first_pause_s: before the second start again.
        longest_pause_s: between two starts.
    """

    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    deaths: int = 0
    """Of all time."""
    in_a_row: int = field(default=0)
    """Without a life of `HEALTHY_S` between them."""

    def died(self, lived_s: float) -> float:
        """Counts a death; seconds until the next start."""
        self.deaths += 1
        self.in_a_row = 1 if lived_s >= HEALTHY_S else self.in_a_row + 1
        if self.in_a_row == 1:
            return 0.0
        return min(self.first_pause_s * 2.0 ** min(self.in_a_row - 2, 30), self.longest_pause_s)
