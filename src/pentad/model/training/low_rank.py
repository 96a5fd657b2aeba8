"""Low-rank adaptation: a small correction of each matrix learns, and is added to it at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pentad.execution.spec import ModelSpec
from pentad.execution.training import Draw, TrainStep
from pentad.model.training.base import WeightRecipe, likelihood_loss
from pentad.model.transforms.base import MATRICES
from pentad.ranges import in_range

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank(WeightRecipe):
    """W + (scale / rank) B A learns in place of W, A drawn, B zero, so that training begins at the model.

    Source: Hu et al., "LoRA" (ICLR 2022), section 4.1. Our difference: the correction is added to the
    matrix when training ends; no adapter is kept apart. Costs gradients of all activations, but
    optimizer state of the small matrices only.
    """

    name: ClassVar[str] = "low-rank"

    learning_rate: float = 1e-3
    """At its highest; above 0, at most 1."""
    rank: int = 8
    """Columns of B and rows of A, 1 to 1024."""
    scale: float = 16.0
    """Weight of the correction, before it is divided by the rank; above 0."""

    def __post_init__(self) -> None:
        in_range("learning_rate", self.learning_rate, above=0, most=1)
        in_range("rank", self.rank, least=1, most=1024)
        in_range("scale", self.scale, above=0, most=10**4)

    def parameters(
        self,
        spec: ModelSpec,  # noqa: ARG002
        weights: Mapping[str, Tensor],
        draw: Draw,
    ) -> dict[str, Tensor]:
        learnt: dict[str, Tensor] = {}
        for name, value in weights.items():
            if name.startswith("layers.") and name.rpartition(".")[2] in MATRICES:
                rows, columns = value.shape
                learnt[f"{name}/a"] = draw((self.rank, columns)) / columns**0.5
                learnt[f"{name}/b"] = value.new_zeros(rows, self.rank)
        return learnt

    def weights(self, weights: Mapping[str, Tensor], learnt: Mapping[str, Tensor]) -> dict[str, Tensor]:
        factor = self.scale / self.rank
        names = (name.removesuffix("/a") for name in learnt if name.endswith("/a"))
        return {name: weights[name] + factor * learnt[f"{name}/b"] @ learnt[f"{name}/a"] for name in names}

    def loss(self, step: TrainStep) -> Tensor:
        return likelihood_loss(step)
