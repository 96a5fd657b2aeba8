"""What training recipes share: all matrices of the layers learn, or those of some names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pentad.execution.spec import ModelSpec
from pentad.execution.training import Draw, TrainStep
from pentad.types import Exactness

if TYPE_CHECKING:
    from torch import Tensor


class WeightRecipe:
    """The usual recipe: weights themselves learn. A subclass writes `loss`.

    `embeddings` of a subclass says whether what lies outside the layers learns too.
    """

    __slots__ = ()
    exactness: ClassVar[Exactness] = "lossy"
    needs: ClassVar[frozenset[str]] = frozenset()

    @property
    def sampled_share(self) -> float:
        """None: the text alone is learnt from."""
        return 0.0

    def parameters(
        self,
        spec: ModelSpec,  # noqa: ARG002
        weights: Mapping[str, Tensor],
        draw: Draw,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        outside = bool(getattr(self, "embeddings", True))
        return {
            name: value.clone() for name, value in weights.items() if outside or name.startswith("layers.")
        }

    def weights(
        self,
        weights: Mapping[str, Tensor],  # noqa: ARG002
        learnt: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        return dict(learnt)

    def loss(self, step: TrainStep) -> Tensor:
        raise NotImplementedError

    def flops(self, spec: ModelSpec, tokens: int) -> float:
        """Two operations per weight and token forward, four backward."""
        return 6.0 * spec.parameters * tokens


def likelihood_loss(step: TrainStep) -> Tensor:
    """Mean negative log-likelihood of the next tokens, nats."""
    chosen = step.logits.log_softmax(-1).gather(1, step.targets[:, None])
    return -chosen.mean()
