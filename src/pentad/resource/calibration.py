"""Calibration: scaling predicted step times to a few steps of the real runner.

Separate from profiling on purpose. A profile predicts models that never ran here; calibration is
for comparing a live engine with its simulation, and says in its record how many steps it used.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pentad.execution.runner import Runner
from pentad.resource.cost import Calibration, StepCost
from pentad.resource.fitting import non_negative_least_squares
from pentad.resource.profile.synthetic import SequenceShape, time_step
from pentad.resource.shape import StepShape

_PULL = 0.05
"""Weight of the wish that a factor stays 1, beside the data: holds factors that no step tells apart."""


def calibrate(cost: StepCost, runner: Runner, *, repeats: int = 5) -> StepCost:
    """A predictor whose terms are scaled to eight ordinary steps measured now on the real runner.

    Args:
        cost: the predictor for this runner's model.
        runner: the real thing; see `time_steps`.
        repeats: timed runs per step.
    """
    return fit(cost, time_steps(runner, repeats=repeats))


def time_steps(
    runner: Runner, shapes: Iterable[list[SequenceShape]] | None = None, *, repeats: int = 5
) -> list[tuple[StepShape, float]]:
    """Shapes and median seconds of steps on a real runner.

    Overwrites the runner's KV slots, so its engine must be idle and its prefix cache empty.

    Args:
        runner: the real thing.
        shapes: batches to run, as (new tokens, context) per sequence; None takes eight ordinary ones.
        repeats: timed runs per batch.
    """
    return [time_step(runner, shape, repeats=repeats) for shape in shapes or _ordinary(runner)]


def fit(cost: StepCost, measured: Iterable[tuple[StepShape, float]]) -> StepCost:
    """The predictor with its terms scaled to measured steps, by non-negative least squares.

    Residuals are relative, so short steps count as much as long ones.

    Args:
        cost: its own factors are replaced.
        measured: shapes with their wall seconds on the real runner; at least one.
    """
    pairs = list(measured)
    if not pairs:
        raise ValueError("calibration needs at least one measured step")
    terms = np.array([cost.terms(shape) for shape, _ in pairs])
    seconds = np.array([value for _, value in pairs])
    pull = _PULL * np.sqrt(len(pairs))
    factors = non_negative_least_squares(
        np.vstack([terms / seconds[:, None], pull * np.eye(terms.shape[1])]),
        np.concatenate([np.ones(len(pairs)), np.full(terms.shape[1], pull)]),
    )
    error = float(np.median(np.abs(terms @ factors / seconds - 1)))
    return cost.with_calibration(Calibration(factors=tuple(factors.tolist()), steps=len(pairs), error=error))


def _ordinary(runner: Runner) -> list[list[SequenceShape]]:
    """Decodes, chunks and mixtures that fit the runner's blocks and context."""
    each = runner.num_blocks // 10
    if each < 1:
        raise ValueError(f"calibration needs at least 10 KV blocks, the runner has {runner.num_blocks}")
    slots = min(each * runner.block_size, runner.spec.context_length)
    short, long = max(2, min(64, slots // 4)), max(4, min(512, slots))
    chunk = max(2, min(256, long // 2))
    return [
        [(1, short)],
        [(1, long)],
        [(1, short)] * 4,
        [(1, long)] * 4,
        [(1, long)] * 8,
        [(chunk, chunk)],
        [(chunk, long)],
        [(1, long)] * 4 + [(chunk, chunk)],
    ]
