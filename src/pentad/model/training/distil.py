"""Distillation: a model learns to give a teacher's distribution of the next token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pentad.execution.training import TrainStep
from pentad.model.training.base import WeightRecipe, likelihood_loss
from pentad.ranges import in_range

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Distil(WeightRecipe):
    """Learns from the logits of a larger model with the same tokenizer, beside the text itself.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2: soft targets
    at a temperature, their gradient scaled by its square. Costs a run of the teacher per step.
    """

    name: ClassVar[str] = "distil"
    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})

    learning_rate: float = 2e-4
    """At its highest; above 0, at most 1."""
    temperature: float = 2.0
    """Both distributions are softened by it; above 0."""
    text_share: float = 0.1
    """Share of the loss that the text's own next tokens have, 0 to 1."""
    embeddings: bool = True
    """Whether embeddings, head and final norm learn too."""

    def __post_init__(self) -> None:
        in_range("learning_rate", self.learning_rate, above=0, most=1)
        in_range("temperature", self.temperature, above=0, most=100)
        in_range("text_share", self.text_share, least=0, most=1)

    def loss(self, step: TrainStep) -> Tensor:
        assert step.teacher is not None, "the trainer brings what a recipe needs"
        wanted = (step.teacher / self.temperature).log_softmax(-1)
        given = (step.logits / self.temperature).log_softmax(-1)
        divergence = (wanted.exp() * (wanted - given)).sum(-1).mean()
        soft = divergence * self.temperature**2
        return (1 - self.text_share) * soft + self.text_share * likelihood_loss(step)
