"""LearntOffload: the base of policies that choose by a network out of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from pentad.errors import InvalidRequest
from pentad.resource.offloading.base import Offloading, OffloadInput, OffloadOutcome, at_site, permitted
from pentad.resource.offloading.learning.features import features, scores
from pentad.resource.offloading.learning.policy_file import PolicyFile, read_policy
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class LearntOffload:
    """Reads the policy where it is put to work, so that strategies can be listed without one."""

    policy: str = ""
    """File that `pentad train-policy` made."""

    name: ClassVar[str]
    training: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Fields of a `TrainingPlan` that differ for it; `scenario` is a scenario's name."""

    def trained(self) -> PolicyFile:
        """What is in the file. Raises InvalidRequest where none is named, BadModelFile for a wrong one."""
        if not self.policy:
            raise InvalidRequest(
                f"offload policy {self.name!r} has not been trained",
                hint=f"pentad train-policy {self.name} --out FILE, then choose {self.name}:policy=FILE",
                param="offload.policy",
            )
        return read_policy(self.policy, self.name)

    def start(self, seed: int = 0) -> Offloading:  # noqa: ARG002 - draws nothing
        return ByNetwork(self.name, self.trained())

    def cost(self, sites: int) -> float:
        return 1e-4 + 8e-6 * sites


class ByNetwork:
    """Takes the permitted site that the network scores highest. Keeps nothing between choices."""

    def __init__(self, name: str, policy: PolicyFile) -> None:
        self._name = name
        self._layers = policy.layers
        self._placed = policy.placed

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        sites, bound = permitted(state)
        found = scores(self._layers, features(state, sites, placed=self._placed))
        # What the network says is a value; the lowest score is taken in all policies, so its negative is
        # told.
        told = {site.name: -float(value) for site, value in zip(sites, found, strict=True)}
        chosen = min(told, key=told.__getitem__)
        return at_site(state, chosen, told, policy=self._name, constraint=bound)

    def learn(self, outcome: OffloadOutcome) -> None:
        """Learns nothing any more."""
