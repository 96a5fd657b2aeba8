"""StepEstimate: how long a step will take, from what the engine's latest steps took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pentad.execution.scheduling import SchedulerInput
from pentad.execution.step_samples import StepSample
from pentad.resource.fitting import non_negative_least_squares

_KNOTS: Final = (8, 16, 32, 48, 64, 80, 96, 128, 192)
"""Tokens of a step at which the cost of a further one may rise: weights are read for few, products made for
many."""
LEAST_SAMPLES: Final = 16
"""Steps without which nothing is predicted."""
_FEW_SAMPLES: Final = 8
"""Of one kind of step, without which all are fitted together."""
_REFIT_STEPS: Final = 32
"""After so many steps a fit has grown old."""
_SOON_STEPS: Final = 4
_WRONG: Final = 0.05
"""After so few, where the latest step took that much longer or shorter than foretold: the load is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEstimate:
    """Non-negative costs of a step and of what it computes, fitted to the relative error of samples.

    Steps of answers alone and steps with prompts have costs of their own, since the prompts' products hide
    what an answer's keys and values cost.
    """

    answers: tuple[float, ...]
    mixed: tuple[float, ...]
    error: float
    """Share by which nine in ten of the samples were longer than fitted, at most."""
    steps_total: int
    """Steps that the engine had done when it was fitted."""

    def seconds(
        self, decodes: int, chunk_tokens: int, slots: float, chunk_pairs: float, *, draws: bool = True
    ) -> float:
        """Of a step with so many sequences that get a token, and so many tokens of prompts beside.

        Args:
            decodes: sequences with one token.
            chunk_tokens: tokens of prompts.
            slots: KV slots of all contexts behind the step.
            chunk_pairs: (token, slot) pairs of the prompts' tokens.
            draws: whether anybody gets a token.
        """
        costs = self.mixed if chunk_tokens else self.answers
        counts = _counts(decodes, chunk_tokens, slots, chunk_pairs, draws)
        return sum(cost * count for cost, count in zip(costs, counts, strict=True))

    def of(self, sample: StepSample) -> float:
        """What a step should have taken."""
        counts = sample.decodes, sample.chunk_tokens, sample.slots, sample.chunk_pairs
        return self.seconds(*counts, draws=sample.draws)


def _counts(
    decodes: int, chunk_tokens: int, slots: float, chunk_pairs: float, draws: bool
) -> tuple[float, ...]:
    tokens = decodes + chunk_tokens
    return (1.0, tokens, *(max(0, tokens - knot) for knot in _KNOTS), slots, chunk_pairs, draws)


def fitted(samples: Sequence[StepSample], steps_total: int) -> StepEstimate | None:
    """The estimate from these samples; None where they are too few."""
    if len(samples) < LEAST_SAMPLES:
        return None
    mixed = [sample for sample in samples if sample.chunk_tokens]
    answers = [sample for sample in samples if not sample.chunk_tokens]
    few = _FEW_SAMPLES
    estimate = StepEstimate(
        answers=_fit(answers if len(answers) >= few else samples),
        mixed=_fit(mixed if len(mixed) >= few else samples),
        error=0.0,
        steps_total=steps_total,
    )
    late = [sample.seconds / max(estimate.of(sample), 1e-9) - 1 for sample in samples]
    return replace(estimate, error=max(0.0, float(np.quantile(late, 0.9))))


def _fit(samples: Sequence[StepSample]) -> tuple[float, ...]:
    taken = np.array([max(sample.seconds, 1e-9) for sample in samples])
    rows = np.array([_counts(s.decodes, s.chunk_tokens, s.slots, s.chunk_pairs, s.draws) for s in samples])
    found = non_negative_least_squares(rows / taken[:, None], np.ones(len(samples)))
    return tuple(float(cost) for cost in found)


def estimate_of(state: SchedulerInput) -> StepEstimate | None:
    """The estimate that the last plan kept, or a new one where that has grown old."""
    kept = state.kept
    if isinstance(kept, StepEstimate):
        since = state.steps_total - kept.steps_total
        wrong = since >= _SOON_STEPS and abs(kept.of(state.steps[-1]) / state.steps[-1].seconds - 1) > _WRONG
        if since < _REFIT_STEPS and not wrong:
            return kept
    return fitted(state.steps, state.steps_total)
