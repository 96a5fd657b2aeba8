"""Traffic envelopes: the most requests that came within windows of any length, and when a load exceeds
them."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

LONGEST_S = 60.0
"""The longest window; longer ones say what the mean rate says."""


def windows(shortest_s: float) -> tuple[float, ...]:
    """Window lengths, each twice the one before, up to `LONGEST_S`."""
    found = [shortest_s]
    while found[-1] * 2 <= LONGEST_S:
        found.append(found[-1] * 2)
    return tuple(found)


def most_within(arrivals: Sequence[float], lengths: Sequence[float]) -> tuple[int, ...]:
    """The most arrivals within a window of each length, wherever it begins."""
    return tuple(
        max((i + 1 - bisect_left(arrivals, at - length) for i, at in enumerate(arrivals)), default=0)
        for length in lengths
    )


class RecentCounts:
    """How many arrived within windows that end now, from looks at a running total."""

    def __init__(self, lengths: Sequence[float]) -> None:
        self._lengths = lengths
        self._looks: deque[tuple[float, int]] = deque()

    def look(self, now_s: float, total: int) -> None:
        """Takes a total in; in order of time."""
        self._looks.append((now_s, total))
        while len(self._looks) > 1 and self._looks[1][0] <= now_s - self._lengths[-1]:
            self._looks.popleft()

    def within(self) -> tuple[int, ...]:
        """Arrivals in each window, as far back as looks go."""
        now_s, total = self._looks[-1]
        return tuple(
            total - next(before for at, before in self._looks if at >= now_s - length - 1e-9)
            for length in self._lengths
        )

    def highest_rate(self, window_s: float, back_s: float) -> float:
        """The most per second in any window of that length within the latest `back_s`."""
        now_s = self._looks[-1][0]
        looks = [each for each in self._looks if each[0] >= now_s - back_s - window_s - 1e-9]
        best, first = 0.0, 0
        for at, total in looks:
            while looks[first][0] < at - window_s - 1e-9:
                first += 1
            best = max(best, (total - looks[first][1]) / window_s)
        return best
