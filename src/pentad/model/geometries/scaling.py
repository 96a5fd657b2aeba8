"""How many parameters and tokens a training budget is best spent on.

Source: Hoffmann et al. 2022 (Chinchilla): both grow alike, 20 tokens to a parameter, and a token costs six
operations per parameter (Kaplan et al. 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

TOKENS_PER_PARAMETER: Final = 20.0
FLOPS_PER_PARAMETER_AND_TOKEN: Final = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSize:
    """A model and its text."""

    parameters: float
    tokens: float

    @property
    def flops(self) -> float:
        """Operations of its training."""
        return FLOPS_PER_PARAMETER_AND_TOKEN * self.parameters * self.tokens


def best_for_flops(flops: float) -> TrainingSize:
    """What so many operations are best spent on. Raises ValueError unless they are positive and finite."""
    if not 0 < flops < math.inf:
        raise ValueError(f"{flops} operations train nothing; give a positive number")
    parameters = math.sqrt(flops / (FLOPS_PER_PARAMETER_AND_TOKEN * TOKENS_PER_PARAMETER))
    return TrainingSize(parameters=parameters, tokens=TOKENS_PER_PARAMETER * parameters)


def best_for_parameters(parameters: float) -> TrainingSize:
    """The text that a model of that size is best trained on."""
    return TrainingSize(parameters=parameters, tokens=TOKENS_PER_PARAMETER * parameters)
