"""Calibration: scaling predicted step times to a few steps of the real runner.

Separate from profiling on purpose. A profile predicts models that never ran here; calibration is
for comparing a live engine with its simulation, and says in its record how many steps it used.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.runner import Runner
from pentad.resource.cost import COUNTS, TERMS, Calibration, StepCost, counts
from pentad.resource.fitting import Floats, non_negative_least_squares
from pentad.resource.profile.synthetic import SequenceShape, time_step
from pentad.resource.step_shape import StepShape
from pentad.types import Clock

_PULL = 0.05
"""Weight of the wish that a factor stays 1, beside the data: holds factors that no step tells apart."""
_HELD_UP = 2.5
_AT_ONCE_S = 0.002
"""An engine with work starts its next step sooner than this."""


def calibrate(cost: StepCost, runner: Runner, *, repeats: int = 5) -> StepCost:
    """A predictor fitted to ordinary steps measured now on the real runner.

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
        shapes: batches to run, as (new tokens, context) per sequence; None takes ordinary ones.
        repeats: timed runs per batch.
    """
    return [time_step(runner, shape, repeats=repeats) for shape in shapes or _ordinary(runner)]


def fit(cost: StepCost, measured: Iterable[tuple[StepShape, float]]) -> StepCost:
    """The predictor fitted to measured steps, by non-negative least squares.

    Scales its terms, and adds seconds per step, sequence, token and attention pair where these
    explain more. Residuals are relative, so short steps count as much as long ones. Steps that took
    several times what the others suggest were held up by something else: they are left out, and the
    time that they lost is spread over all steps.

    Args:
        cost: its own calibration is replaced.
        measured: shapes with their wall seconds on the real runner; at least one.
    """
    pairs = list(measured)
    if not pairs:
        raise ValueError("calibration needs at least one measured step")
    columns = np.array([(*cost.terms(shape), *counts(shape)) for shape, _ in pairs])
    seconds = np.array([value for _, value in pairs])
    found = _solve(columns, seconds)
    usual = seconds < _HELD_UP * (columns @ found)
    found = _solve(columns[usual], seconds[usual]) if usual.any() else found
    expected = columns @ found
    found = found * (seconds.sum() / np.where(usual, seconds, expected).sum())
    error = float(np.median(np.abs(columns @ found / seconds - 1)))
    split = len(TERMS)
    calibration = Calibration(
        factors=tuple(found[:split].tolist()),
        rates=tuple(found[split:].tolist()),
        steps=len(pairs),
        error=error,
    )
    return cost.with_calibration(calibration)


def _solve(columns: Floats, seconds: Floats) -> Floats:
    """Factors pulled towards 1 and rates pulled towards 0, the less the more steps there are."""
    relative = columns / seconds[:, None]
    pull = _PULL * np.sqrt(len(seconds))
    scale = np.concatenate([np.ones(len(TERMS)), relative[:, len(TERMS) :].mean(axis=0)])
    wished = np.concatenate([np.ones(len(TERMS)), np.zeros(len(COUNTS))])
    return non_negative_least_squares(
        np.vstack([relative, pull * np.diag(scale)]), np.concatenate([np.ones(len(seconds)), pull * wished])
    )


class StepLog:
    """A runner that notes the shape and the time of every step of another one.

    The time of a step runs to the start of the next where that follows at once, so what the engine
    spends between steps is part of it, and of what `fit` learns. Goes where the runner goes.

    Args:
        runner: the real thing.
        clock: wall time in seconds.
    """

    def __init__(self, runner: Runner, clock: Clock) -> None:
        self._runner = runner
        self._clock = clock
        self._steps: list[tuple[StepShape, float, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def step(self, batch: RaggedBatch, rows: Sequence[SampleRow]) -> list[Drawn]:
        begun_s = self._clock()
        drawn = self._runner.step(batch, rows)
        self._steps.append((StepShape.of(batch), begun_s, self._clock()))
        return drawn

    def measured(self) -> list[tuple[StepShape, float]]:
        """Shapes and seconds of the steps so far, for `fit`."""
        found = []
        for (shape, begun_s, ended_s), (_, next_s, _) in itertools.pairwise(self._steps):
            at_once = next_s - ended_s < _AT_ONCE_S
            found.append((shape, (next_s if at_once else ended_s) - begun_s))
        return found


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
