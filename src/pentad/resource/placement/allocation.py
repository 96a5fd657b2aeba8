"""How many requests in flight each of several pipelines gets, and how good the whole is."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from pentad.resource.placement.workbench import Goal, Groups, Trial, Workbench
from pentad.types import Objective

_FEW = 6
"""Pipelines among which requests are also moved to and fro."""
_PORTIONS = 32
"""A pipeline's share of the requests is dealt out in so many portions at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Pipelines that serve all requests of a problem together."""

    trials: tuple[Trial, ...]
    score: tuple[float, float]
    """By how much limits are exceeded, then what the goal counts. Less is better."""


def scored(trials: Sequence[Trial], goal: Goal, objective: Objective) -> Outcome:
    """The outcome of pipelines side by side, each with its requests."""
    requests = sum(trial.concurrency for trial in trials)
    excess = sum(trial.excess for trial in trials)
    spent: tuple[tuple[Goal, float | None], ...] = (
        ("cost", objective.max_cost),
        ("energy", objective.max_energy_j),
    )
    for what, allowed in spent:
        if allowed is not None:
            told = sum(trial.value(what) for trial in trials) / requests
            excess += max(0.0, told / allowed - 1) if allowed else told
    values = [trial.value(goal) for trial in trials]
    whole = max(values) if goal == "latency" else sum(values)
    return Outcome(trials=tuple(trials), score=(excess, whole))


def allocate(bench: Workbench, pipelines: Sequence[Groups], requests: int) -> Outcome | None:
    """The requests dealt out portion by portion, each to the pipeline where it does most for the goal.

    Pipelines that get none are left out. None where the pipelines cannot hold all requests together. Cost:
    a prediction per portion; optimal where what a pipeline gains falls with what it has.
    """
    if not pipelines:
        return None
    portion = max(1, requests // (_PORTIONS * len(pipelines)))
    found: list[Trial | None] = [None] * len(pipelines)
    heap: list[tuple[float, float, int]] = []
    offers: dict[int, Trial] = {}

    def offer(place: int, size: int) -> None:
        now = found[place]
        trial = bench.best(pipelines[place], size + (now.concurrency if now else 0))
        if trial is None and size > 1:
            offer(place, 1)
        elif trial is not None:
            offers[place] = trial
            before = now.value(bench.goal) if now and bench.goal != "latency" else 0.0
            added = trial.concurrency - (now.concurrency if now else 0)
            share = 1 if bench.goal == "latency" else added
            heapq.heappush(heap, (trial.excess, (trial.value(bench.goal) - before) / share, place))

    left = requests
    for place in range(len(pipelines)):
        offer(place, min(portion, left))
    while left:
        if not heap:
            return None
        _, _, place = heapq.heappop(heap)
        now, trial = found[place], offers.pop(place)
        added = trial.concurrency - (now.concurrency if now else 0)
        if added > left:
            offer(place, left)
            continue
        found[place] = trial
        left -= added
        if left:
            offer(place, min(portion, left))
    whole = scored([t for t in found if t is not None], bench.goal, bench.problem.objective)
    return _refined(bench, pipelines, found, whole) if 1 < len(pipelines) <= _FEW else whole


def _refined(
    bench: Workbench, pipelines: Sequence[Groups], found: list[Trial | None], best: Outcome
) -> Outcome:
    """Requests moved from one pipeline to another as long as that is better."""
    requests = sum(trial.concurrency for trial in best.trials)
    for step in dict.fromkeys((requests, requests // 2, requests // 4, 1)):
        improved = step > 0
        while improved:
            improved = False
            for source in range(len(pipelines)):
                for target in range(len(pipelines)):
                    changed = _moved(bench, pipelines, found, source, target, step)
                    if changed is None:
                        continue
                    kept = [trial for trial in changed if trial is not None]
                    outcome = scored(kept, bench.goal, bench.problem.objective)
                    if outcome.score < best.score:
                        found[:], best, improved = changed, outcome, True
    return best


def _moved(
    bench: Workbench,
    pipelines: Sequence[Groups],
    found: list[Trial | None],
    source: int,
    target: int,
    step: int,
) -> list[Trial | None] | None:
    """The trials with some requests moved, all that the source has at most; None where they do not fit."""
    giver, taker = found[source], found[target]
    if source == target or giver is None:
        return None
    size = min(step, giver.concurrency)
    left = giver.concurrency - size
    changed = list(found)
    changed[source] = bench.best(pipelines[source], left) if left else None
    changed[target] = bench.best(pipelines[target], size + (taker.concurrency if taker else 0))
    if changed[target] is None or (left and changed[source] is None):
        return None
    return changed
