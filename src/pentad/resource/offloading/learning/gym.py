"""The environment of offloading as a `gymnasium.Env`, for whoever trains or judges with other libraries."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from pentad.execution.value_learning import Array
from pentad.resource.offloading.learning.environment import OffloadEnvironment
from pentad.resource.offloading.scenarios import scenario


class OffloadEnv(gymnasium.Env[Array, int]):  # type: ignore[misc]
    """A scenario as a `gymnasium.Env` (extra `eval`): all sites' features in a row, one of them to choose.

    Args:
        name: a scenario's.
        placed: whether machines are told apart.
        changes: of the scenario's numbers.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, name: str = "mobile-edge", *, placed: bool = False, **changes: object) -> None:
        self._inner = OffloadEnvironment(scenario(name, **changes), placed=placed)
        sites, width = self._inner.shape
        self.action_space = gymnasium.spaces.Discrete(sites)
        self.observation_space = gymnasium.spaces.Box(-10.0, 100.0, (sites * width,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """The first request of the seed's episode; without a seed, of one by chance."""
        super().reset(seed=seed, options=options)
        table, info = self._inner.reset(seed=int(self.np_random.integers(2**31)) if seed is None else seed)
        return table.ravel().copy(), info

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """See `OffloadEnvironment.step`."""
        table, reward, over, cut, info = self._inner.step(int(action))
        return table.ravel().copy(), reward, over, cut, info
