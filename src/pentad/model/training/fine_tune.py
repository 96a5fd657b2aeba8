"""Fine-tuning: all weights learn to predict the next token of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pentad.execution.training import TrainStep
from pentad.model.training.base import WeightRecipe, likelihood_loss
from pentad.ranges import in_range

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune(WeightRecipe):
    """Next-token training of the weights, by cross-entropy.

    Source: the usual causal language-model objective (Radford et al., 2018). Costs four copies of the
    weights in float32.
    """

    name: ClassVar[str] = "fine-tune"

    learning_rate: float = 2e-4
    """At its highest; above 0, at most 1."""
    embeddings: bool = True
    """Whether embeddings, head and final norm learn too."""

    def __post_init__(self) -> None:
        in_range("learning_rate", self.learning_rate, above=0, most=1)

    def loss(self, step: TrainStep) -> Tensor:
        return likelihood_loss(step)
