"""How many threads a step gets, learnt from how long steps take.

Each operation ends at a barrier of its threads. When another program holds one of the cores, every
barrier waits until that core is given back, and a step of some hundred barriers takes ten to a
hundred times its usual time, where fewer threads would lose little. So both counts are tried now
and then, and the faster one is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pentad.types import Clock

_SMOOTHING = 0.3
"""Weight of the latest step in the running mean of a step's time."""
_WARM_STEPS = 2
"""Steps of a size before the other count is first tried: the first ones pay for set-up."""
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 32.0


@dataclass(slots=True)
class _Size:
    """What is known of steps of about one size: mean seconds by thread count."""

    steps: int = 0
    mean_s: dict[int, float] = field(default_factory=dict)
    wait_s: float = _FIRST_WAIT_S
    next_trial_s: float = 0.0


class ThreadChoice:
    """Chooses between all threads and half of them for steps of similar size.

    Sizes are kept apart by powers of two. The count not in use is tried again after a second, and
    after twice as long each time that it loses. Cost: a microsecond per step, and the trials.

    Args:
        most: threads to use where nothing else runs.
        apply: sets the number of threads of the operations that follow.
        clock: wall time in seconds.
    """

    def __init__(self, most: int, apply: Callable[[int], None], clock: Clock) -> None:
        self._most = most
        self._fewer = max(1, most // 2)
        self._apply = apply
        self._clock = clock
        self._sizes: dict[int, _Size] = {}

    @contextmanager
    def step(self, tokens: int) -> Iterator[int]:
        """Runs a step of that many tokens with the chosen number of threads, and learns from it."""
        size = self._sizes.setdefault(tokens.bit_length(), _Size())
        started_s = self._clock()
        best = self._best(size)
        size.steps += 1
        trial = size.steps > _WARM_STEPS and self._fewer < self._most and started_s >= size.next_trial_s
        count = (self._most + self._fewer - best) if trial else best
        self._apply(count)
        yield count
        ended_s = self._clock()
        self._learn(size, count, ended_s - started_s, settled=not trial and size.steps > _WARM_STEPS)
        if trial or self._best(size) != best:
            lost = trial and self._best(size) == best
            size.wait_s = min(2 * size.wait_s, _LONGEST_WAIT_S) if lost else _FIRST_WAIT_S
            size.next_trial_s = ended_s + size.wait_s

    def _best(self, size: _Size) -> int:
        """The count with the lowest mean; all threads while nothing is known."""
        if not size.mean_s:
            return self._most
        return min(size.mean_s, key=lambda count: (size.mean_s[count], -count))

    def _learn(self, size: _Size, count: int, seconds: float, *, settled: bool) -> None:
        """Steps in a row are averaged; a trial stands alone, what was known before it is out of date."""
        known = size.mean_s.get(count) if settled else None
        size.mean_s[count] = seconds if known is None else known + _SMOOTHING * (seconds - known)
