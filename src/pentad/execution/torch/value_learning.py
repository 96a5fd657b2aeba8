"""Double Q-learning on PyTorch: one flat tensor of weights, so that steps of small networks stay short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from pentad.execution.value_learning import Layers, Transitions

_CLIP = 10.0
"""Longest gradient."""
_BETAS = (0.9, 0.999)
_SMALL = 1e-8


class QLearner:
    """Fits scores to reward plus the discounted score of what would be chosen next.

    The next choice is the network's, its value the slow target network's.

    Source: van Hasselt, Guez and Silver, "Deep reinforcement learning with double Q-learning", AAAI 2016; the
    target follows by small steps (Lillicrap et al., 2016) in place of copies; Huber's loss and Adam.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        seed: int,
        learning_rate: float = 1e-3,
        discount: float = 0.9,
        target_rate: float = 0.01,
        begin: Layers | None = None,
    ) -> None:
        self._shapes = list(pairwise(widths))
        self._learning_rate = learning_rate
        self._discount = discount
        self._target_rate = target_rate
        dice = torch.Generator().manual_seed(seed)
        if begin is None:
            flat = torch.cat([self._drawn(rows, columns, dice) for rows, columns in self._shapes])
        else:
            flat = torch.cat([torch.from_numpy(np.array(part).ravel()) for layer in begin for part in layer])
        self._flat = flat.to(torch.float32).requires_grad_(True)
        self._target = flat.detach().clone()
        self._mean = torch.zeros_like(self._target)
        self._square = torch.zeros_like(self._target)
        self._steps = 0

    def update(self, batch: Transitions) -> float:
        chosen = torch.from_numpy(batch.features)
        with torch.no_grad():
            upcoming = torch.from_numpy(batch.next_features)
            missing = torch.from_numpy(~batch.next_there)
            best = self._scores(self._flat, upcoming).masked_fill(missing, -torch.inf).argmax(1, keepdim=True)
            picked = upcoming.gather(1, best[..., None].expand(-1, -1, upcoming.shape[2]))[:, 0]
            later = self._scores(self._target, picked)
            later *= torch.from_numpy(batch.goes_on)
            wanted = torch.from_numpy(batch.rewards) + self._discount * later
        loss = F.smooth_l1_loss(self._scores(self._flat, chosen), wanted)
        (gradient,) = torch.autograd.grad(loss, self._flat)
        self._descend(gradient)
        return float(loss.detach())

    @property
    def weights(self) -> Layers:
        flat = self._flat.detach()
        return [(matrix.numpy(), bias.numpy()) for matrix, bias in self._layers(flat)]

    def state(self) -> Mapping[str, npt.NDArray[np.generic]]:
        return {
            "weights": self._flat.detach().numpy().copy(),
            "target": self._target.numpy().copy(),
            "mean": self._mean.numpy().copy(),
            "square": self._square.numpy().copy(),
            "steps": np.array(self._steps),
        }

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        with torch.no_grad():
            for name, tensor in (
                ("weights", self._flat),
                ("target", self._target),
                ("mean", self._mean),
                ("square", self._square),
            ):
                if state[name].shape != tuple(tensor.shape):
                    raise ValueError(f"{name} has {state[name].size} numbers, the network {tensor.numel()}")
                tensor.copy_(torch.from_numpy(state[name]))
        self._steps = int(state["steps"])

    @staticmethod
    def _drawn(rows: int, columns: int, dice: torch.Generator) -> torch.Tensor:
        """Even numbers by the number of inputs, biases 0."""
        reach = (3.0 / rows) ** 0.5
        matrix = (torch.rand(rows * columns, generator=dice) * 2 - 1) * reach
        return torch.cat([matrix, torch.zeros(columns)])

    def _layers(self, flat: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        found, at = [], 0
        for rows, columns in self._shapes:
            end = at + rows * columns
            found.append((flat[at:end].view(rows, columns), flat[end : end + columns]))
            at = end + columns
        return found

    def _scores(self, flat: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        layers = self._layers(flat)
        for matrix, bias in layers[:-1]:
            features = torch.relu(features @ matrix + bias)
        matrix, bias = layers[-1]
        return (features @ matrix + bias)[..., 0]

    def _descend(self, gradient: torch.Tensor) -> None:
        """One step of Adam on the flat tensor, and of the target towards it."""
        with torch.no_grad():
            self._steps += 1
            length = gradient.norm()
            if length > _CLIP:
                gradient = gradient * (_CLIP / length)
            first, second = _BETAS
            self._mean.lerp_(gradient, 1 - first)
            self._square.lerp_(gradient * gradient, 1 - second)
            root = (self._square / (1 - second**self._steps)).sqrt_().add_(_SMALL)
            self._flat.addcdiv_(self._mean / (1 - first**self._steps), root, value=-self._learning_rate)
            self._target.lerp_(self._flat.detach(), self._target_rate)
