"""Recalibrated: an estimate corrected by what came of a tenant's own requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pentad.model.routing.calibration import logit, sigmoid
from pentad.model.routing.outcomes import Outcome
from pentad.model.routing.success import Array, Chance, Question, SuccessEstimate

_LATEST: Final = 400
"""Outcomes that count, so that a model that changes is known anew."""
_STEPS: Final = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrated:
    """The same order of questions, with each model's chances moved to what the tenant's requests came to.

    One number per model is added to the log odds: the most probable one, given the outcomes and that before
    any it is 0 give or take `spread`. So a few outcomes move little and many decide.
    Cost: some sums over the recorded outcomes when it is made, and nothing per question.

    Source: prior correction of a logistic model's intercept (King & Zeng 2001, section 4.1), with a Gaussian
    prior; online calibration by cheap signals is ours.
    """

    estimate: SuccessEstimate
    shifts: Mapping[str, float]
    """Model to what is added to its log odds."""
    seen: Mapping[str, int]

    @classmethod
    def by(
        cls,
        estimate: SuccessEstimate,
        outcomes: Sequence[Outcome],
        *,
        spread: float = 1.0,
    ) -> Recalibrated:
        """Corrected by outcomes that hold what this estimate said before."""
        shifts, seen = {}, {}
        for name in estimate.models:
            pairs = [
                (one.said[name], one.right[name])
                for one in outcomes[-_LATEST:]
                if name in one.right and name in one.said
            ]
            seen[name] = len(pairs)
            if pairs:
                chances, right = np.array(pairs).T
                shifts[name] = _shift(logit(chances), right, spread)
        return cls(estimate=estimate, shifts=shifts, seen=seen)

    @property
    def models(self) -> tuple[str, ...]:
        return self.estimate.models

    def chances(self, questions: Sequence[Question]) -> list[Mapping[str, Chance]]:
        """See SuccessEstimate."""
        return [
            {
                name: Chance.of(
                    float(sigmoid(logit(np.array(one.probability)) + self.shifts.get(name, 0.0))),
                    one.evidence + self.seen.get(name, 0),
                )
                for name, one in row.items()
            }
            for row in self.estimate.chances(questions)
        ]


def _shift(scores: Array, right: Array, spread: float) -> float:
    """The most probable shift, by Newton's method on a concave function."""
    shift = 0.0
    for _ in range(_STEPS):
        chance = sigmoid(scores + shift)
        slope = float((right - chance).sum()) - shift / spread**2
        curve = float((chance * (1 - chance)).sum()) + 1 / spread**2
        shift += slope / curve
    return shift
