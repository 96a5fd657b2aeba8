"""What a training recipe is: which weights learn, what they make of the model, and the loss (interface 9).

A recipe says what is learnt; the trainer owns the loop, the order of the data, the optimizer and the
checkpoints. So a recipe is a few lines, and every recipe can be interrupted and goes on to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from pentad.execution.spec import ModelSpec
from pentad.execution.weights import WeightSource
from pentad.ranges import in_range
from pentad.types import Exactness

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Tell = Callable[[int, int], None]
"""Told steps done and in total."""


class Draw(Protocol):
    """Normal random numbers of a seed that is the training's own."""

    def __call__(self, shape: Shape) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class TrainStep:
    """What one step computed: a row for each token of the batch that has a next one."""

    logits: Tensor
    """[N, V], with gradients."""
    targets: Tensor
    """[N] ids of the next tokens."""
    teacher: Tensor | None
    """The teacher's logits [N, V], without gradients; there when the recipe needs one."""


class TrainRecipe(Protocol):
    """How a model learns. Frozen; the same recipe, data and seed give the same weights on one machine."""

    @property
    def name(self) -> str: ...

    @property
    def exactness(self) -> Exactness: ...

    @property
    def needs(self) -> frozenset[str]:
        """What must be at hand beside the model and its text: `teacher`."""
        ...

    @property
    def learning_rate(self) -> float:
        """At its highest, behind the warm-up."""
        ...

    @property
    def sampled_share(self) -> float:
        """Share of the steps, 0 to 1, whose windows the model goes on with itself behind their first half."""
        ...

    def parameters(self, spec: ModelSpec, weights: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """The numbers that learn, by a name of the recipe's own; float32, leaves.

        Args:
            weights: the model's, by canonical name.
        """
        ...

    def weights(self, weights: Mapping[str, Tensor], learnt: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's weights that differ, by canonical name, made of what has been learnt so far."""
        ...

    def loss(self, step: TrainStep) -> Tensor:
        """One number to be made smaller."""
        ...

    def flops(self, spec: ModelSpec, tokens: int) -> float:
        """Floating-point operations of training on so many tokens, about."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and on how much."""

    steps: int = 200
    batch: int = 2
    """Windows of a step."""
    window_tokens: int = 256
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises; then it falls by a cosine to 0."""
    seed: int = 0
    checkpoint_steps: int = 50
    """Steps between checkpoints; an interruption costs at most those."""

    def __post_init__(self) -> None:
        in_range("steps", self.steps, least=1, most=10**7)
        in_range("batch", self.batch, least=1, most=10**5)
        in_range("window_tokens", self.window_tokens, least=2, most=10**6)
        in_range("warmup", self.warmup, least=0, most=1)
        in_range("checkpoint_steps", self.checkpoint_steps, least=1, most=10**7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of it."""

    weights: Mapping[str, npt.NDArray[np.float32]]
    """Those that differ from the model's, by canonical name."""
    loss_before: float
    """Mean negative log-likelihood of a held-out token, nats; perplexity is its exponential."""
    loss_after: float
    losses: tuple[float, ...] = field(default=())
    """The recipe's loss of each step."""


class Trainer(Protocol):
    """Runs recipes."""

    def __call__(
        self,
        spec: ModelSpec,
        source: WeightSource,
        recipe: TrainRecipe,
        tokens: Sequence[int],
        schedule: Schedule,
        *,
        folder: str,
        teacher: tuple[ModelSpec, WeightSource] | None = None,
        tell: Tell,
    ) -> Trained:
        """Trains; goes on at the last checkpoint in `folder`.

        Raises:
            Incompatible: a model that cannot be trained here, or a text that is too short.
        """
        ...
