"""Routers on recorded outcomes: what quality each reaches at what cost, on questions held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from pentad import choice
from pentad.errors import InvalidRequest
from pentad.model.routing.calibration import calibration_error
from pentad.model.routing.success import Array, Lessons

BASELINE: Final = "knn"
ORACLE: Final = "oracle"
_PRICES: Final = 200
_RESAMPLES: Final = 500
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What a router does at each price of money [L], question by question [L, N]."""

    quality: Array
    cost: Array

    def area(self, least: float, most: float, weights: Array | None = None) -> Array:
        """The mean quality over all budgets from `least` to `most`, for each row [B, N] of weights.

        A budget beyond what the router wants to spend gets what it wants.
        """
        count = self.quality.shape[1]
        weights = np.ones((1, count)) / count if weights is None else weights
        grid = np.linspace(least, most, 201)
        found = []
        for quality, cost in zip(weights @ self.quality.T, weights @ self.cost.T, strict=True):
            order = np.argsort(cost, kind="stable")
            line = np.interp(grid, cost[order], quality[order])
            found.append(float(line.mean()))
        return np.array(found)


def curve_of(chances: Array, right: Array, costs: Array) -> Curve:
    """A router's choices by chances [N, M] as money grows dearer: the most chance less price times cost.

    The price begins at 0: nobody pays more for an answer that is believed to be no better.
    """
    gains = chances[:, :, None] - chances[:, None, :]
    more = costs[:, None] - costs[None, :]
    slopes = (gains / np.where(more > 0, more, np.nan)).ravel()
    slopes = slopes[np.isfinite(slopes) & (slopes > 0)]
    prices = np.unique(np.quantile(slopes, np.linspace(0, 1, _PRICES))) if len(slopes) else np.zeros(1)
    prices = np.concatenate([[0.0], prices, prices[-1:] * 2 + 1e9])
    rows = np.arange(len(right))
    quality, cost = np.empty((len(prices), len(right))), np.empty((len(prices), len(right)))
    for i, price in enumerate(prices):
        # Of equal ones the cheaper, by a hair that no chance is apart.
        chosen = np.argmax(chances - (price + 1e-12) * costs, axis=1)
        quality[i], cost[i] = right[rows, chosen], costs[chosen]
    return Curve(quality=quality, cost=cost)


def costs_of(given: Mapping[str, float], lessons: Lessons) -> dict[str, float]:
    """What each model costs: as given, else 1 for the least right, 2 for the next ...

    Raises InvalidRequest where only some are given.
    """
    if not given:
        order = np.argsort(np.nanmean(lessons.right, axis=0), kind="stable")
        return {lessons.models[place]: float(1 + i) for i, place in enumerate(order)}
    if missing := [name for name in lessons.models if name not in given]:
        raise InvalidRequest(
            f"no cost is given for {', '.join(missing)}",
            hint=f"add --cost {missing[0]}=NUMBER, or give none",
            param="cost",
        )
    return {name: given[name] for name in lessons.models}


def bench_routing(
    lessons: Lessons,
    routers: Sequence[str],
    costs: Mapping[str, float],
    *,
    seeds: int,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Learns on one half of the questions and judges on the other, for so many ways to halve them.

    The router `knn` is always among them. Raises InvalidRequest where a question lacks an outcome, or there
    are too few; UnknownName for no estimator.
    """
    if len(lessons.models) < 2 or np.isnan(lessons.right).any():
        raise InvalidRequest(
            "a cost-quality curve needs an outcome of each of two models or more on each question",
            hint="record all models on the same questions",
            param="outcomes",
        )
    names = list(dict.fromkeys([*routers, BASELINE]))
    price = np.array([costs[name] for name in lessons.models])
    rounds = []
    for seed in range(seeds):
        rounds.append(_round(lessons, names, price, seed))
        if tell is not None:
            tell(seed + 1, seeds)
    return {
        "questions": len(lessons.questions),
        "held_out": len(lessons.questions) - len(lessons.questions) // 2,
        "seeds": seeds,
        "costs": dict(costs),
        "best_single": _mean([one["best_single"] for one in rounds]),
        "random": _mean([one["random"] for one in rounds]),
        "oracle": _mean([one["oracle"] for one in rounds]),
        "routers": {name: _joined([one["routers"][name] for one in rounds]) for name in names},
        "curves": rounds[0]["curves"],
    }


def _round(lessons: Lessons, names: Sequence[str], costs: Array, seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(lessons.questions))
    half = len(order) // 2
    learned = replace(
        lessons, questions=[lessons.questions[i] for i in order[:half]], right=lessons.right[order[:half]]
    )
    asked, right = [lessons.questions[i] for i in order[half:]], lessons.right[order[half:]]
    least, most = float(costs.min()), float(costs.max())
    weights = chance.multinomial(len(right), np.ones(len(right)) / len(right), size=_RESAMPLES) / len(right)
    curves, errors = {}, {}
    for name in names:
        said = choice.build("success", choice.Choice.of(name)).fit(learned).chances(asked)
        chances = np.array([[row[model].probability for model in lessons.models] for row in said])
        curves[name] = curve_of(chances, right, costs)
        errors[name] = [calibration_error(chances[:, i], right[:, i]) for i in range(len(costs))]
    best = int(np.argmax(learned.right.mean(axis=0)))
    single, base = right[:, best], curves[BASELINE].area(least, most, weights)
    found = {}
    for name, curve in curves.items():
        areas = curve.area(least, most, weights)
        found[name] = {
            "area": float(curve.area(least, most)[0]),
            "over_knn": float(curve.area(least, most)[0] - curves[BASELINE].area(least, most)[0]),
            "over_knn_interval": _interval(areas - base),
            "over_best_single": float(curve.area(least, most)[0] - single.mean()),
            "over_best_single_interval": _interval(areas - weights @ single),
            "peak_quality": float(curve.quality.mean(axis=1).max()),
            "ece": dict(zip(lessons.models, errors[name], strict=True)),
        }
    return {
        "best_single": float(single.mean()),
        "random": _random_area(right.mean(axis=0), costs),
        "oracle": float(curve_of(right, right, costs).area(least, most)[0]),
        "routers": found,
        "curves": {
            name: [
                [round(float(c), 6), round(float(q), 6)]
                for c, q in zip(curve.cost.mean(axis=1), curve.quality.mean(axis=1), strict=True)
            ]
            for name, curve in curves.items()
        },
    }


def _random_area(quality: Array, costs: Array) -> float:
    """The best that one gets by drawing the model, whatever is asked: the upper hull of the single models."""
    grid = np.linspace(costs.min(), costs.max(), 201)
    line = np.full(len(grid), -np.inf)
    for i in range(len(costs)):
        line = np.where(costs[i] <= grid, np.maximum(line, quality[i]), line)
        for j in range(len(costs)):
            if costs[j] > costs[i]:
                share = (grid - costs[i]) / (costs[j] - costs[i])
                mixed = quality[i] + share * (quality[j] - quality[i])
                line = np.where((share >= 0) & (share <= 1), np.maximum(line, mixed), line)
    return float(line.mean())


def _interval(values: Array) -> list[float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]


def _joined(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The means over all ways to halve; of how many of them a router was ahead; the worst calibration."""
    models = rounds[0]["ece"]
    return {
        "area": _mean([one["area"] for one in rounds]),
        "over_knn": _mean([one["over_knn"] for one in rounds]),
        "over_knn_interval": [_mean([one["over_knn_interval"][i] for one in rounds]) for i in (0, 1)],
        "ahead_of_knn": sum(one["over_knn"] > 0 for one in rounds),
        "over_best_single": _mean([one["over_best_single"] for one in rounds]),
        "over_best_single_interval": [
            _mean([one["over_best_single_interval"][i] for one in rounds]) for i in (0, 1)
        ],
        "peak_quality": _mean([one["peak_quality"] for one in rounds]),
        "ece": {model: _mean([one["ece"][model] for one in rounds]) for model in models},
        "ece_worst": round(max(max(one["ece"].values()) for one in rounds), 5),
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 5)
