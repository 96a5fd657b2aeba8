"""Delay and energy of devices that live on what they harvest, without knowledge of what is to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.offloading.base import (
    Offloading,
    OffloadInput,
    OffloadOutcome,
    OffloadTask,
    Site,
    at_site,
    estimate,
    permitted,
)
from pentad.resource.offloading.scenarios import Weights
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyHarvest:
    """Takes the site with the least cost times `v` plus energy times what the battery lacks of `level_j`.

    Where the model is cut, which clock and which share of a machine are sites of their own (`variants.py`). A
    joule is free while the battery stands at its level, and the dearer the emptier it is, so energy goes to
    the requests that gain most by it. What the battery does not have is never spent: such sites are left out.
    No arrivals and no harvest need to be known. Requests of devices on the mains pay for cost alone.
    Lossless.

    Source: Chang et al., "Dynamic resource allocation and computation offloading for IoT fog computing
    system", IEEE TII 2021: Lyapunov optimization with a perturbed battery queue. Ours places requests one by
    one, and takes the best of the sites there are in place of solving for clock and share. Rules that
    learnt `v` at work cost 15 and 27% more than the best constant, so it is one.
    """

    level_j: float = 10.0
    """Where the battery is to stand, above 0: some requests' worth below its capacity."""
    v: float = 100.0
    """What a unit of cost weighs, above 0, in joules that the battery lacks times joules that are spent."""
    energy_per_j: float = 0.02
    """Of the cost: for a joule of the device, 0 or more."""
    late: float = 1.0
    """Of the cost: for a request behind its deadline, 0 or more, beside its time in deadlines."""

    name: ClassVar[str] = "energy-harvest"

    def __post_init__(self) -> None:
        in_range("level_j", self.level_j, above=0)
        in_range("v", self.v, above=0)
        in_range("energy_per_j", self.energy_per_j, least=0)
        in_range("late", self.late, least=0)

    def start(self, seed: int = 0) -> Offloading:  # noqa: ARG002 - draws nothing
        return _Battery(self)

    def cost(self, sites: int) -> float:
        return 1e-5 + 6e-6 * sites


class _Battery:
    """Keeps nothing between choices."""

    def __init__(self, policy: EnergyHarvest) -> None:
        self._policy = policy
        self._weights = Weights(energy_per_j=policy.energy_per_j, late=policy.late, money=0.0)

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        sites, bound = permitted(state)
        lacking_j = 0.0 if state.battery_j is None else self._policy.level_j - state.battery_j
        scores = {site.name: self._score(state.task, site, lacking_j) for site in sites}
        chosen = min(scores, key=scores.__getitem__)
        return at_site(state, chosen, scores, policy=self._policy.name, constraint=bound)

    def _score(self, task: OffloadTask, site: Site, lacking_j: float) -> float:
        found = estimate(task, site)
        return self._policy.v * self._weights.of(task, found) + lacking_j * found.energy_j

    def learn(self, outcome: OffloadOutcome) -> None:
        """Has nothing to learn of outcomes."""
