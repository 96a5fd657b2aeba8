"""StepCosts: how long a step takes by the tokens it computes, learned from the steps themselves."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import deque

_SAMPLES = 5


class StepCosts:
    """A curve through the measured points, never falling.

    Each point is the median of its latest five measurements, so that one disturbed step changes
    nothing. Between points it is linear. Beyond the last it goes on as between the last two, or
    flat where there is one only: what is unknown is tried, but only within `reach`.
    """

    __slots__ = ("_curve", "_samples")

    def __init__(self) -> None:
        self._samples: dict[int, deque[float]] = {}
        self._curve: tuple[list[int], list[float]] | None = None

    def observe(self, tokens: int, seconds: float) -> None:
        """Notes a step of so many tokens that all had a row of logits."""
        self._samples.setdefault(_point(tokens), deque(maxlen=_SAMPLES)).append(seconds)
        self._curve = None

    def knows(self, tokens: int) -> bool:
        """Whether a step of so many tokens, or of fewer, was measured."""
        return any(point <= tokens for point in self._samples)

    @property
    def reach(self) -> int:
        """Tokens up to which a guess is dared: about twice what was measured."""
        return 2 * max(self._samples, default=0) + 2

    def seconds(self, tokens: int) -> float:
        """The expected time of a step; 0 while nothing was measured."""
        points, times = self._curve or self._fitted()
        if not points:
            return 0.0
        i = bisect_left(points, tokens)
        if (i < len(points) and points[i] == tokens) or i == 0:
            return times[min(i, len(points) - 1)]
        if i == len(points):
            if len(points) == 1:
                return times[0]
            i -= 1
        slope = (times[i] - times[i - 1]) / (points[i] - points[i - 1])
        return times[i - 1] + slope * (tokens - points[i - 1])

    def _fitted(self) -> tuple[list[int], list[float]]:
        points = sorted(self._samples)
        times: list[float] = []
        for point in points:
            measured = statistics.median(self._samples[point])
            times.append(max(measured, times[-1]) if times else measured)
        self._curve = (points, times)
        return self._curve


def _point(tokens: int) -> int:
    """Itself up to 16; beyond, rounded up to an eighth of its power of two."""
    step = max(1, 1 << max(0, tokens - 1).bit_length() - 4) if tokens > 16 else 1
    return -(-tokens // step) * step
