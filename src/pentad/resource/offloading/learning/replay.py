"""Replay memories: the latest experience, in one memory or in several that are drawn from alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from pentad.execution.value_learning import Array, Transitions

Memories = Literal["one", "by-kind"]
"""`by-kind`: one for each kind of site, so that what is rarely done is not lost among the rest."""
KINDS = ("device", "edge", "remote")


class ReplayMemory:
    """The latest `size` transitions, in a ring."""

    def __init__(self, size: int, sites: int, width: int) -> None:
        self._size = size
        self._written = 0
        self._arrays: dict[str, npt.NDArray[np.generic]] = {
            "features": np.zeros((size, width), np.float32),
            "rewards": np.zeros(size, np.float32),
            "next_features": np.zeros((size, sites, width), np.float32),
            "next_there": np.zeros((size, sites), np.bool_),
            "goes_on": np.zeros(size, np.bool_),
        }

    def __len__(self) -> int:
        return min(self._written, self._size)

    def add(self, features: Array, reward: float, following: Array | None) -> None:
        """One choice; `following` [sites, F] are the candidates of the next, None behind the last one."""
        at, arrays = self._written % self._size, self._arrays
        count = 0 if following is None else len(following)
        arrays["features"][at] = features
        arrays["rewards"][at] = reward
        arrays["next_there"][at] = np.arange(arrays["next_there"].shape[1]) < max(1, count)
        arrays["goes_on"][at] = following is not None
        if following is not None:
            arrays["next_features"][at, :count] = following
        self._written += 1

    def rows(self, indices: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.generic]]:
        return {name: array[indices] for name, array in self._arrays.items()}

    def draw(self, count: int, dice: np.random.Generator) -> Transitions:
        """A batch, with repetition."""
        return Transitions(**self.rows(dice.integers(0, len(self), count)))  # type: ignore[arg-type]

    def state(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """All that it holds."""
        kept = slice(0, len(self))
        return {**{k: v[kept] for k, v in self._arrays.items()}, "written": np.array(self._written)}

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Takes up what `state` gave. Raises ValueError or KeyError where it does not fit."""
        for name, array in self._arrays.items():
            array[: len(state[name])] = state[name]
        self._written = int(state["written"])


class Experience:
    """Transitions of a training, to draw batches from.

    With several memories each gives an equal part of a batch, those that are still empty none.

    Source: Xiong et al., "Resource allocation based on deep reinforcement learning in IoT edge computing",
    IEEE JSAC 2020: experience of small mutual influence is kept apart. Ours is told apart by the kind of the
    site.
    """

    def __init__(self, memories: Memories, size: int, sites: int, width: int) -> None:
        kinds = KINDS if memories == "by-kind" else ("",)
        self._memories = {kind: ReplayMemory(size // len(kinds), sites, width) for kind in kinds}

    def __len__(self) -> int:
        return sum(len(memory) for memory in self._memories.values())

    def add(self, kind: str, features: Array, reward: float, following: Array | None) -> None:
        self._memories[kind if kind in self._memories else ""].add(features, reward, following)

    def draw(self, count: int, dice: np.random.Generator) -> Transitions:
        """A batch, with repetition."""
        filled = [memory for memory in self._memories.values() if len(memory)]
        part = -(-count // len(filled))
        rows = [memory.rows(dice.integers(0, len(memory), part)) for memory in filled]
        merged = {name: np.concatenate([each[name] for each in rows]) for name in rows[0]}
        return Transitions(**merged)

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        return {
            f"{kind}/{name}": array
            for kind, memory in self._memories.items()
            for name, array in memory.state().items()
        }

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        for kind, memory in self._memories.items():
            memory.restore(
                {
                    name.removeprefix(f"{kind}/"): array
                    for name, array in state.items()
                    if name.startswith(f"{kind}/")
                }
            )
