"""Summary: what a contender's results on a suite add up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pentad.agent.evaluation.results import CaseResult
from pentad.model.intervals import Interval, bootstrap, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One line of the table."""

    suite: str
    model: str
    planner: str
    coordinator: str
    cases: int
    successes: int
    success_rate: float
    success_interval: Interval
    """95%, Wilson."""
    mean_score: float
    score_interval: Interval
    """95%, percentile bootstrap."""
    tokens_per_success: float | None
    """Of all cases, divided by the successes; None where there are none. So the next two."""
    seconds_per_success: float | None
    joules_per_success: float | None
    """None also where a case was not metered."""


def summarize(results: Sequence[CaseResult]) -> Summary:
    """What they add up to.

    Args:
        results: of one contender on one suite; at least one.
    """
    first, scores = results[0], [result.score for result in results]
    successes = sum(result.success for result in results)

    def per_success(amount: Callable[[CaseResult], float]) -> float | None:
        return round(math.fsum(map(amount, results)) / successes, 3) if successes else None

    metered = all(result.joules is not None for result in results)
    return Summary(
        suite=first.suite,
        model=first.model,
        planner=first.planner,
        coordinator=first.coordinator,
        cases=len(results),
        successes=successes,
        success_rate=successes / len(results),
        success_interval=wilson(successes, len(results)),
        mean_score=math.fsum(scores) / len(scores),
        score_interval=bootstrap(scores),
        tokens_per_success=per_success(lambda r: r.tokens),
        seconds_per_success=per_success(lambda r: r.seconds),
        joules_per_success=per_success(lambda r: r.joules or 0.0) if metered else None,
    )
