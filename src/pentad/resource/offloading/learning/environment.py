"""A scenario with the interface of `gymnasium`: features are what is observed, a site is the action."""

from __future__ import annotations

from typing import Any

import numpy as np

from pentad.errors import Infeasible
from pentad.execution.value_learning import Array
from pentad.resource.offloading.base import OffloadInput, Site, permitted
from pentad.resource.offloading.learning.features import features
from pentad.resource.offloading.mobile_world import MobileWorld, Placed
from pentad.resource.offloading.scenarios import Scenario


class OffloadEnvironment:
    """One request per step; needs no `gymnasium` (`gym.py` adds its spaces).

    An observation is [sites, F]. `info["allowed"]` says which of the sites a request may go to,
    `info["placed"]` what became of the last one. The reward is the cost below 0. Requests that fit nowhere
    are dropped on the way, and their cost is part of the reward of the step in front of them.
    """

    def __init__(self, scenario: Scenario, *, placed: bool = False, first_seed: int = 0) -> None:
        self.scenario = scenario
        self._placed = placed
        self._seed = first_seed
        self._world = MobileWorld(scenario, first_seed)
        self._sites: tuple[Site, ...] = ()
        self._table: Array = np.zeros((0, 0), np.float32)
        self._skip()

    @property
    def shape(self) -> tuple[int, int]:
        """Sites and features of an observation."""
        return self._table.shape[0], self._table.shape[1]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Those of the request that waits."""
        return self._sites

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """The first request of an episode; without a seed, of the one behind the last."""
        del options
        self._seed = self._seed + 1 if seed is None else seed
        self._world = MobileWorld(self.scenario, self._seed)
        self._skip()
        return self._table, self._info(None)

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """The next request, the reward, whether that was the last one, False, and more about both."""
        site = self._sites[int(action)]
        # A site that is not allowed computes nothing.
        placed = self._world.step(site.name if self._allowed[int(action)] else None)
        cost = placed.cost + self._skip()
        return self._table, -cost, self._world.state is None, False, self._info(placed)

    def _skip(self) -> float:
        """Drops what fits nowhere; returns the cost of that."""
        cost = 0.0
        while (state := self._world.state) is not None:
            try:
                self._show(state)
                return cost
            except Infeasible:
                cost += self._world.step(None).cost
        return cost

    def _show(self, state: OffloadInput) -> None:
        allowed = {site.name for site in permitted(state)[0]}
        self._sites = state.sites
        self._allowed = np.array([site.name in allowed for site in state.sites])
        self._table = features(state, state.sites, placed=self._placed)

    def _info(self, placed: Placed | None) -> dict[str, Any]:
        return {"allowed": self._allowed, "placed": placed}
