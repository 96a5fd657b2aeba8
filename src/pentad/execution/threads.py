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
"""Steps of a size before the other count is first tried: the first ones pay for set-up."""
_GAIN: Final = 0.95
"""The other count must need less than this share of the time, or noise would decide."""
_SLOW: Final = 1.5
"""A step of so many times the usual length asks for a trial at once."""
_SMOOTHING: Final = 0.1
_WAIT_S: Final = 1.0
"""Between trials at least."""
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
    steps: int = 0
    usual_s: float = 0.0
    """Running mean of the steps with that count."""
    next_trial_s: float = 0.0
    tokens: int = 0
    """Of the steps on trial: only equal ones are compared."""
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

    @contextmanager
    def step(self, tokens: int) -> Iterator[int]:
        """Runs a step of that many tokens with the chosen number of threads, and learns from it."""
        size = self._sizes.get(tokens.bit_length())
        if size is None:
            size = self._sizes[tokens.bit_length()] = _Size(self._most)
        started_s = self._clock()
        on_trial = self._on_trial(size, tokens, started_s)
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
            if seconds > _SLOW * size.usual_s and tokens == size.tokens:
                size.next_trial_s = min(size.next_trial_s, ended_s)
            size.usual_s += _SMOOTHING * (seconds - size.usual_s)
        size.tokens = tokens

    def _on_trial(self, size: _Size, tokens: int, now_s: float) -> bool:
        """Whether this step belongs to a trial: one begins when its time has come."""
        if self._fewer == self._most or size.steps < _WARM_STEPS:
            return False
        if size.trial and size.tokens != tokens:
            size.trial.clear()
        return bool(size.trial) or (size.tokens == tokens and now_s >= size.next_trial_s)

    def _judge(self, size: _Size, now_s: float) -> None:
        """Takes the count that won, and says when the next trial is due."""
        turns = list(zip(size.trial, _TURNS, strict=False))
        other_s = sum(seconds for seconds, other in turns if other)
        used_s = sum(seconds for seconds, other in turns if not other)
        won = len(turns) == len(_TURNS) and other_s < _GAIN * used_s
        size.trial.clear()
        if won:
            size.count = self._most + self._fewer - size.count
            size.usual_s = 2 * other_s / len(_TURNS)
        loss = _LOSS if size.count == self._most else _LOSS_ON_FEWER
        size.next_trial_s = now_s + min(_LONGEST_WAIT_S, max(_WAIT_S, abs(other_s - used_s) / loss))
