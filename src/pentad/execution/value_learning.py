"""What a learner of values is: it fits a network that scores the candidates of a choice to rewards.

The network is a few small layers over one candidate's features; the candidates of a choice share it, so a
choice may have any number of them. Acting needs numpy alone: whoever chooses reads `weights`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Layers = Sequence[tuple[Array, Array]]
"""Matrix [inputs, outputs] and bias [outputs] of each layer; between two layers stands a ReLU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitions:
    """A batch of choices [B] with what followed, of up to S candidates of F features each."""

    features: Array
    """[B, F] of what was chosen."""
    rewards: Array
    """[B]."""
    next_features: Array
    """[B, S, F] of all that could be chosen next."""
    next_there: npt.NDArray[np.bool_]
    """[B, S]: which of these exist."""
    goes_on: npt.NDArray[np.bool_]
    """[B]: whether there was a next choice."""


class ValueLearner(Protocol):
    """Learns by gradient steps. The same seed and batches give the same weights on one machine."""

    def update(self, batch: Transitions) -> float:
        """Makes one step; returns the loss in front of it."""
        ...

    @property
    def weights(self) -> Layers:
        """As they are now; they change with the next step."""
        ...

    def state(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """All that a restart needs: weights, the target's, moments and the number of steps."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Takes up what `state` gave. Raises ValueError or KeyError where it does not fit."""
        ...


class MakeLearner(Protocol):
    """Makes a learner."""

    def __call__(
        self,
        widths: Sequence[int],
        *,
        seed: int,
        learning_rate: float,
        discount: float,
        target_rate: float,
        begin: Layers | None = None,
    ) -> ValueLearner:
        """A learner of a network of these widths, from the features to the one score.

        Args:
            discount: what a reward one choice later counts, 0 to below 1.
            target_rate: share of the way that the target network goes towards the other per step.
            begin: weights to go on from; None draws them.
        """
        ...
