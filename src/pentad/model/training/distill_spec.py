"""DistillSpec: a draft model learns, on texts of its own, what its target would say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pentad.execution.training import TrainStep
from pentad.model.training.base import WeightRecipe
from pentad.ranges import in_range

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSpec(WeightRecipe):
    """A draft learns its target's distribution on its own samples, so that more of its guesses are accepted.

    Exactness: lossy for the draft; what a target answers with it is the same. Cost: a run of the target per
    step, and for sampled steps one run of the draft per sampled token.

    Source: Zhou et al., "DistillSpec" (ICLR 2024), section 4: on-policy data, a divergence of choice; the
    mixture of given and sampled texts is Agarwal et al., "GKD" (ICLR 2024), algorithm 1. Our difference: the
    draft goes on behind the first half of windows of the user's text, and both halves count.
    """

    name: ClassVar[str] = "distillspec"
    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})

    learning_rate: float = 5e-4
    """At its highest; above 0, at most 1."""
    sampled_share: float = 0.5
    """Share of the steps whose texts the draft goes on with itself, 0 to 1."""
    divergence: Literal["forward-kl", "reverse-kl", "total-variation"] = "forward-kl"
    """What is made small; the total variation distance is one less the acceptance rate of sampled guesses."""
    embeddings: bool = False
    """Whether embeddings, head and final norm learn too."""

    def __post_init__(self) -> None:
        in_range("learning_rate", self.learning_rate, above=0, most=1)
        in_range("sampled_share", self.sampled_share, least=0, most=1)

    def loss(self, step: TrainStep) -> Tensor:
        assert step.teacher is not None, "the trainer brings what a recipe needs"
        wanted, given = step.teacher.log_softmax(-1), step.logits.log_softmax(-1)
        if self.divergence == "forward-kl":
            return (wanted.exp() * (wanted - given)).sum(-1).mean()
        if self.divergence == "reverse-kl":
            return (given.exp() * (given - wanted)).sum(-1).mean()
        return 0.5 * (wanted.exp() - given.exp()).abs().sum(-1).mean()
