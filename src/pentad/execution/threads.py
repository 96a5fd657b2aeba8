"""How many threads a step gets, learnt from how long steps take.

Each phase of a step ends at a barrier of its threads. When another program holds one of the cores,
every barrier waits until that core is given back, and a step takes several times its usual time,
where fewer threads would lose little. So now and then some steps are run with the other count, in
turn with the one in use, and the faster count is used from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from pentad.types import Clock

_TURNS: Final = (False, True, True, False, True, False, False, True)
"""Which steps of a trial get the other count: what grows evenly from step to step cancels out."""
_WARM_STEPS: Final = 4
"""Equal steps in a row before one may be told from the usual, or the other count tried."""
_GAIN: Final = 0.95
"""The other count must need less than this share of the time, or noise would decide."""
_SLOW: Final = 1.5
"""A step of so many times the usual asks for a trial before its time."""
_SMOOTHING: Final = 0.1
_WAIT_S: Final = 1.0
"""Between trials at least, after one that lost."""
_LOST: Final = 2.0
"""A step with the other count that took so many times the usual ends its trial: the count has lost."""
_LOSS: Final = 0.004
_LOSS_ON_FEWER: Final = 0.05
"""Share of the time that trials may cost: the more one lost, the later the next comes. On fewer
threads only a trial tells that the cores are free again, so there it may cost more."""
_LONGEST_WAIT_S: Final = 32.0


@dataclass(slots=True)
class _Size:
    """What is known of steps of about one size."""

    count: int
    """Threads in use."""
    next_trial_s: float = 0.0
    tokens: int = 0
    """Of the last step."""
    steps: int = 0
    """In a row, of so many tokens each: only these are compared."""
    usual_s: float = 0.0
    """Their running mean with that count."""
    trial: list[float] = field(default_factory=list)
    """Seconds of the steps on trial so far."""


class ThreadChoice:
    """Chooses between all threads and half of them for steps of similar size.

    Sizes are kept apart by powers of two. Cost: a microsecond per step, and the trials.

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
        self._last: _Size | None = None
        self._calm_s = 0.0
        """No trial on all threads begins before."""
        self._alarm_s = 0.0
        """Nor one that a slow step asks for."""
        self._alarm_wait_s = _WAIT_S

    @contextmanager
    def step(self, tokens: int) -> Iterator[int]:
        """Runs a step of that many tokens with the chosen number of threads, and learns from it."""
        size = self._sizes.get(tokens.bit_length())
        if size is None:
            size = self._sizes[tokens.bit_length()] = _Size(self._most)
        started_s = self._clock()
        if size is not self._last or size.tokens != tokens:
            size.tokens, size.steps, size.usual_s = tokens, 0, 0.0
            size.trial.clear()
            self._last = size
        on_trial = self._on_trial(size, started_s)
        other = on_trial and _TURNS[len(size.trial)]
        count = self._most + self._fewer - size.count if other else size.count
        self._apply(count)
        yield count
        ended_s = self._clock()
        seconds = ended_s - started_s
        size.steps += 1
        if on_trial:
            size.trial.append(seconds)
            if len(size.trial) == len(_TURNS) or (other and size.usual_s and seconds > _LOST * size.usual_s):
                self._judge(size, ended_s)
        elif not size.usual_s:
            size.usual_s = seconds if size.steps >= _WARM_STEPS else 0.0
        else:
            if seconds > _SLOW * size.usual_s and ended_s >= self._alarm_s:
                size.next_trial_s = self._calm_s = ended_s
                self._alarm_s = ended_s + self._alarm_wait_s
                self._alarm_wait_s = min(2 * self._alarm_wait_s, _LONGEST_WAIT_S)
            size.usual_s += _SMOOTHING * (seconds - size.usual_s)

    def _on_trial(self, size: _Size, now_s: float) -> bool:
        """Whether this step belongs to a trial: one begins when its time has come."""
        if size.trial:
            return True
        due_s = max(size.next_trial_s, self._calm_s) if size.count == self._most else size.next_trial_s
        return self._fewer < self._most and size.steps >= _WARM_STEPS and now_s >= due_s

    def _judge(self, size: _Size, now_s: float) -> None:
        """Takes the count that won, and says when the next trials are due."""
        turns = list(zip(size.trial, _TURNS, strict=False))
        other_s = sum(seconds for seconds, other in turns if other)
        used_s = sum(seconds for seconds, other in turns if not other)
        won = len(turns) == len(_TURNS) and other_s < _GAIN * used_s
        size.trial.clear()
        if won:
            size.count = self._most + self._fewer - size.count
            size.usual_s = 2 * other_s / len(_TURNS)
            self._alarm_wait_s = _WAIT_S
        loss = _LOSS if size.count == self._most else _LOSS_ON_FEWER
        size.next_trial_s = now_s + min(_LONGEST_WAIT_S, max(_WAIT_S, abs(other_s - used_s) / loss))
        # What slows one size slows the others: after a trial that lost they wait too, else they may try.
        self._calm_s = now_s if won else size.next_trial_s
