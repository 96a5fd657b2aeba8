"""Calibration: from scores to probabilities that keep what they say, and how far some are from that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from pentad.model.routing.success import Array

_STEPS = 50
_LEAST = 1e-6


def logit(probabilities: Array) -> Array:
    """Log odds, of probabilities kept a little off 0 and 1."""
    kept = np.clip(probabilities, 1e-4, 1 - 1e-4)
    found: Array = np.log(kept / (1 - kept))
    return found


def sigmoid(scores: Array) -> Array:
    """The way back."""
    found: Array = 1 / (1 + np.exp(-np.clip(scores, -35, 35)))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Platt:
    """Two numbers that turn a score into a probability: the same order of scores, other values.

    Source: Platt 1999, "Probabilistic outputs for support vector machines", with its targets off 0 and 1;
    fitted by Newton's method. Fit it on scores that the model did not learn from.
    """

    slope: float
    offset: float

    @classmethod
    def fit(cls, scores: Array, right: Array) -> Self:
        """Maximum likelihood. Equal input gives equal numbers."""
        good, bad = float(right.sum()), float((1 - right).sum())
        target = right * ((good + 1) / (good + 2)) + (1 - right) / (bad + 2)
        inputs = np.column_stack([scores, np.ones_like(scores)])
        weights = np.array([1.0, 0.0])
        for _ in range(_STEPS):
            chance = sigmoid(inputs @ weights)
            slope = inputs.T @ (chance - target)
            curve = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + _LEAST * np.eye(2)
            step = np.linalg.solve(curve, slope)
            weights = weights - step
            if float(np.abs(step).max()) < _LEAST:
                break
        return cls(slope=float(weights[0]), offset=float(weights[1]))

    def __call__(self, scores: Array) -> Array:
        return sigmoid(self.slope * scores + self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Isotonic:
    """Steps that never fall: each score gets the share that was right among those about as high.

    Source: Zadrozny & Elkan 2002, "Transforming classifier scores into accurate multiclass probability
    estimates"; pool-adjacent-violators. Wants some hundred scores; with fewer, Platt is the better.
    """

    edges: tuple[float, ...]
    """Lowest score of each step, rising."""
    levels: tuple[float, ...]

    @classmethod
    def fit(cls, scores: Array, right: Array) -> Self:
        order = np.argsort(scores, kind="stable")
        blocks: list[tuple[float, float, int]] = []  # lowest score, sum, how many
        for score, one in zip(scores[order].tolist(), right[order].tolist(), strict=True):
            low, total, count = float(score), float(one), 1
            while blocks and blocks[-1][1] * count >= total * blocks[-1][2]:
                earlier = blocks.pop()
                low, total, count = earlier[0], total + earlier[1], count + earlier[2]
            blocks.append((low, total, count))
        return cls(edges=tuple(b[0] for b in blocks), levels=tuple(b[1] / b[2] for b in blocks))

    def __call__(self, scores: Array) -> Array:
        place = np.clip(np.searchsorted(self.edges, scores, side="right") - 1, 0, None)
        found: Array = np.asarray(self.levels)[place]
        return found


def calibration_error(probabilities: Array, right: Array, *, bins: int = 10) -> float:
    """Expected calibration error: over bins of equal width, the mean distance of what was said from what was.

    Source: Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    place = np.clip((probabilities * bins).astype(int), 0, bins - 1)
    total = 0.0
    for one in range(bins):
        inside = place == one
        if inside.any():
            total += abs(float(probabilities[inside].mean() - right[inside].mean())) * int(inside.sum())
    return total / len(probabilities)


def conformal_threshold(scores: Sequence[float], level: float) -> float:
    """The least score that a fresh one keeps below with probability of at least 1 - level.

    Scores are those of calibration cases that must not pass. Infinite where there are too few of them.
    Source: Vovk et al. 2005; split conformal prediction with its finite-sample correction.
    """
    rank = math.ceil((len(scores) + 1) * (1 - level))
    return math.inf if rank > len(scores) else sorted(scores)[rank - 1]
