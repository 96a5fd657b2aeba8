"""Scores of policies: goodput with intervals, quality by class against its floor, tokens, joules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pentad.agent.evaluation.workload import Workload
from pentad.application.bench.elastic.run_line import RunLine

_RESAMPLES: Final = 2000
Floats = npt.NDArray[np.float64]


def score(
    lines: Sequence[RunLine], workload: Workload, *, minutes: float, arrived: int, seed: int
) -> dict[str, Any]:
    """What a policy reached at one load.

    Args:
        lines: its runs; arrivals that did not come to their turn are not counted.
        minutes: of arrivals that were played.
        arrived: arrivals in these.
    """
    good = np.array([one.good for one in lines], dtype=np.float64)
    interval = _interval(good, lambda part: part.sum(axis=1) / minutes, seed) if len(good) else [0.0, 0.0]
    joules = [one.joules for one in lines]
    return {
        "runs": len(lines),
        "arrived": arrived,
        "minutes": round(minutes, 3),
        "goodput_per_minute": round(float(good.sum()) / minutes, 4) if minutes else 0.0,
        "goodput_interval": interval,
        "good": int(good.sum()),
        "right": sum(one.right for one in lines),
        "in_time": sum("deadline_s" not in one.missed for one in lines),
        "within_budget": sum(not set(one.missed) - {"deadline_s"} for one in lines),
        "tokens": sum(one.tokens for one in lines),
        "cost": round(sum(one.cost for one in lines), 6),
        "joules": None if any(each is None for each in joules) else round(sum(filter(None, joules)), 1),
        "seconds_p50": _quantile(lines, 0.5),
        "seconds_p95": _quantile(lines, 0.95),
        "models": _counts([one.model or "none" for one in lines]),
        "ways": _counts([one.way for one in lines if one.way]),
        "classes": {
            one.name: _class([line for line in lines if line.slo_class == one.name], one.quality, one.target)
            for one in workload.classes
        },
    }


def ratio(ours: Sequence[RunLine], theirs: Sequence[RunLine], seed: int) -> dict[str, Any] | None:
    """Goodput over another policy's on the same arrivals, with a paired interval; None: none has any."""
    other = {one.arrival: one.good for one in theirs}
    pairs = [(one.good, other[one.arrival]) for one in ours if one.arrival in other]
    if not pairs or not any(good for _, good in pairs):
        return None
    found = np.array(pairs, dtype=np.float64)
    drawn = found[_resampled(len(found), seed)].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = drawn[:, 0] / drawn[:, 1]
    finite = ratios[np.isfinite(ratios)]
    low, high = np.quantile(finite, [0.025, 0.975])
    return {
        "ratio": round(float(found[:, 0].sum() / found[:, 1].sum()), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
        "pairs": len(pairs),
    }


def _class(lines: Sequence[RunLine], floor: float | None, target: float) -> dict[str, Any]:
    if not lines:
        return {"runs": 0}
    quality = sum(one.right for one in lines) / len(lines)
    kept = sum(not one.missed for one in lines) / len(lines)
    return {
        "runs": len(lines),
        "good": sum(one.good for one in lines),
        "quality": round(quality, 4),
        "quality_interval": _interval(
            np.array([one.right for one in lines], dtype=np.float64), lambda part: part.mean(axis=1), 0
        ),
        "floor": floor,
        "floor_kept": floor is None or quality >= floor,
        "limits_kept": round(kept, 4),
        "target": target,
        "missed": _counts([name for one in lines for name in one.missed]),
    }


def _interval(values: Floats, of: Callable[[Floats], Floats], seed: int) -> list[float]:
    low, high = np.quantile(of(values[_resampled(len(values), seed)]), [0.025, 0.975])
    return [round(float(low), 4), round(float(high), 4)]


def _resampled(count: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, count, (_RESAMPLES, count))


def _quantile(lines: Sequence[RunLine], share: float) -> float | None:
    return round(float(np.quantile([one.seconds for one in lines], share)), 3) if lines else None


def _counts(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}
