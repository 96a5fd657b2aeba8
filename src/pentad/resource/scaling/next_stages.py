"""NextStages: which model an agent run will likely want next, and when, from what runs did before.

planner --(coder 0.8, pause about 6 s)--> coder --(planner 0.5 | end 0.5)--> ...
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pentad.resource.residual_life import mean_residual_s

_MOST_RUNS: Final = 4096
_SAMPLES: Final = 64
_SILENT_S: Final = 900.0
"""A run that was not heard of for so long has ended without saying so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A model call of an agent run that began or ended."""

    at_s: float
    run: str
    model: str
    ended: bool = False
    last: bool = False
    """Whether its run has announced that nothing follows it."""
    next_model: str | None = None
    """Which model the run has announced to call next; None: it does not say."""
    pause_s: float | None = None
    """In how many seconds behind its end, as announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A call that is likely to come."""

    in_s: float
    """Seconds until it comes, at least 0."""
    chance: float
    """That it is this model which the run wants next, above 0 to 1."""


@dataclass(slots=True)
class _Times:
    """The latest durations of one kind, as they came and in order."""

    latest: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    ordered: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        if len(self.latest) == _SAMPLES:
            self.ordered.remove(self.latest[0])
        self.latest.append(seconds)
        insort(self.ordered, seconds)

    def left_s(self, elapsed_s: float, unknown_s: float) -> float:
        """What is left of one that has lasted so long."""
        return mean_residual_s(self.ordered, elapsed_s) if self.ordered else max(0.0, unknown_s - elapsed_s)


@dataclass(slots=True)
class _Run:
    call: Call
    """The latest event of it."""
    since_s: float
    """When the stage that it is in began, or ended."""


class NextStages:
    """A Markov chain over the models that runs call, with the times of calls and of the pauses between them.

    What runs are declared to do counts as so many observations, so that it is outweighed once runs do
    something else. What a run announces itself counts alone. Two stages of each run are looked ahead, and
    the first two of the next run.

    Source: transitions of workflows observed and predicted, as in the survey's proactive allocation (section
    VII-A2); a Markov chain is the simplest such predictor, our own choice.

    Args:
        follows: per model, how likely others are declared to follow it; what they leave of 1 is the end.
        worth: observations that the declaration of a model counts as.
        learns: whether what runs do is observed; without it the declaration stands.
        unknown_s: a call or a pause of which nothing is known.
    """

    def __init__(
        self,
        follows: Mapping[str, Mapping[str, float]],
        *,
        worth: float = 2.0,
        learns: bool = True,
        unknown_s: float = 5.0,
    ) -> None:
        self._learns = learns
        self._unknown_s = unknown_s
        self._counts: dict[str, Counter[str]] = {}
        for model, others in follows.items():
            counts: dict[str, float] = {other: worth * chance for other, chance in others.items()}
            counts[""] = worth * max(0.0, 1 - sum(others.values()))
            self._counts[model] = Counter(counts)
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._calls: dict[str, _Times] = {}
        self._pauses: dict[tuple[str, str], _Times] = {}
        self._first: Counter[str] = Counter()
        """Models that runs began with."""
        self._gaps = _Times()
        """Between the beginnings of runs."""
        self._began_s: float | None = None

    def note(self, calls: Iterable[Call]) -> None:
        """Learns from calls that began or ended, in the order of their instants."""
        for call in calls:
            before = self._runs.pop(call.run, None)
            if call.ended:
                if before is not None:
                    self._calls.setdefault(call.model, _Times()).add(call.at_s - before.since_s)
                if call.last:
                    self._count(call.model, "")
                    continue
            elif before is not None and before.call.ended:
                self._count(before.call.model, call.model)
                pauses = self._pauses.setdefault((before.call.model, call.model), _Times())
                pauses.add(call.at_s - before.since_s)
            elif before is None:
                self._begins(call)
            self._runs[call.run] = _Run(call, call.at_s)
            while len(self._runs) > _MOST_RUNS:
                self._runs.popitem(last=False)

    def expected(self, now_s: float) -> dict[str, list[Expected]]:
        """By model, the calls that are likely to come next."""
        found: dict[str, list[Expected]] = {}
        for name, run in list(self._runs.items()):
            elapsed_s = now_s - run.since_s
            if elapsed_s > _SILENT_S:
                self._count(run.call.model, "")
                del self._runs[name]
                continue
            for model, chance in self._next(run.call).items():
                in_s = self._pause_s(run.call, model, elapsed_s if run.call.ended else 0.0)
                if not run.call.ended:
                    in_s += self._call_s(run.call.model, elapsed_s)
                self._add(found, model, in_s, chance)
        if self._began_s is not None and self._gaps.ordered:
            in_s = self._gaps.left_s(now_s - self._began_s, self._unknown_s)
            total = sum(self._first.values())
            for model, count in self._first.items():
                self._add(found, model, in_s, count / total)
        return found

    def _add(self, found: dict[str, list[Expected]], model: str, in_s: float, chance: float) -> None:
        """Notes a call that is likely to come, and those that are likely behind it."""
        found.setdefault(model, []).append(Expected(in_s=in_s, chance=chance))
        ended_s = in_s + self._call_s(model, 0.0)
        for behind, then in self._following(model).items():
            later_s = ended_s + self._gap_s(model, behind, 0.0)
            found.setdefault(behind, []).append(Expected(in_s=later_s, chance=chance * then))

    def _begins(self, call: Call) -> None:
        """A run that was not heard of before."""
        if self._learns:
            self._first[call.model] += 1
            if self._began_s is not None:
                self._gaps.add(call.at_s - self._began_s)
            self._began_s = call.at_s

    def _count(self, model: str, following: str) -> None:
        if self._learns:
            self._counts.setdefault(model, Counter())[following] += 1

    def _next(self, call: Call) -> dict[str, float]:
        if call.last:
            return {}
        if call.next_model is not None:
            return {call.next_model: 1.0}
        return self._following(call.model)

    def _following(self, model: str) -> dict[str, float]:
        counts = self._counts.get(model, Counter())
        total = sum(counts.values())
        return {other: count / total for other, count in counts.items() if other and count}

    def _pause_s(self, call: Call, model: str, elapsed_s: float) -> float:
        if call.pause_s is not None and elapsed_s <= call.pause_s:
            return call.pause_s - elapsed_s
        return self._gap_s(call.model, model, elapsed_s)

    def _gap_s(self, model: str, following: str, elapsed_s: float) -> float:
        return self._pauses.get((model, following), _Times()).left_s(elapsed_s, self._unknown_s)

    def _call_s(self, model: str, elapsed_s: float) -> float:
        return self._calls.get(model, _Times()).left_s(elapsed_s, self._unknown_s)
