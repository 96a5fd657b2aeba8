"""A trained policy that goes on learning while it is at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from pentad.execution.value_learning import Array
from pentad.ranges import in_range
from pentad.resource.offloading.awaited import Awaited
from pentad.resource.offloading.base import (
    Offloading,
    OffloadInput,
    OffloadOutcome,
    at_site,
    estimate,
    permitted,
)
from pentad.resource.offloading.learning.features import PLACED, PLAIN, features, scores
from pentad.resource.offloading.learning.learnt import LearntOffload
from pentad.resource.offloading.learning.policy_file import PolicyFile
from pentad.resource.offloading.learning.replay import ReplayMemory
from pentad.resource.offloading.learning.training import make_learner
from pentad.resource.offloading.scenarios import USUAL_DEADLINE_S
from pentad.types import Decision

_MOST_SITES = 24
"""Candidates of a next choice that are looked at."""
_DISCOUNT = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class AtTestTime(LearntOffload):
    """Chooses by a trained network that each outcome trains further, so that it follows what has changed.

    Which model a machine must load first, and how long the context of a request has grown, are in the
    estimate that the network sees; machines are told apart, so it learns what one does not say of itself. The
    steps are those of its training, on the latest outcomes alone. Needs PyTorch while it is at work.
    Lossless.

    Source: Xu et al., "Cached model-as-a-resource: provisioning large language model agents for edge
    intelligence in space-air-ground integrated networks", 2024 (T2DRL). Ours learns values of choices in
    place of a policy, and machines load the models that their requests need in place of a plan of caching.
    """

    learning_rate: float = 3e-3
    """Of the steps at work, above 0."""
    steps: int = 2
    """Gradient steps behind each outcome, 0 or more; 0 freezes the network."""
    latest: int = 256
    """Outcomes that are learnt from."""
    batch: int = 32
    """Of them in a step."""
    chance: float = 0.02
    """Share of the choices that try any site, 0 to 1, so that one that was bad is seen to be good again."""

    name: ClassVar[str] = "test-time"
    training: ClassVar[Mapping[str, Any]] = MappingProxyType({"scenario": "agent-cache", "placed": True})

    def __post_init__(self) -> None:
        in_range("learning_rate", self.learning_rate, above=0)
        in_range("steps", self.steps, least=0, most=1000)
        in_range("batch", self.batch, least=1)
        in_range("latest", self.latest, least=self.batch)
        in_range("chance", self.chance, least=0, most=1)

    def start(self, seed: int = 0) -> Offloading:
        return _Learning(self, self.trained(), seed)

    def cost(self, sites: int) -> float:
        return 5e-4 + 8e-6 * sites + self.steps * 5e-4


class _Learning:
    """The network as it is by now, and the latest outcomes."""

    def __init__(self, policy: AtTestTime, trained: PolicyFile, seed: int) -> None:
        self._policy = policy
        self._weights = trained.cost
        self._placed = trained.placed
        width = len(PLACED if trained.placed else PLAIN)
        layers = trained.layers
        self._learner = make_learner()(
            (width, *(len(bias) for _, bias in layers)),
            seed=seed,
            learning_rate=policy.learning_rate,
            discount=_DISCOUNT,
            target_rate=0.05,
            begin=layers,
        )
        self._memory = ReplayMemory(policy.latest, _MOST_SITES, width)
        self._dice = np.random.default_rng((seed, 0x77))
        self._awaited: Awaited[_Choice] = Awaited()
        self._last: _Choice | None = None

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        sites, bound = permitted(state)
        table = features(state, sites, placed=self._placed)
        found = scores(self._learner.weights, table)
        tried = self._policy.steps > 0 and self._dice.random() < self._policy.chance
        at = int(self._dice.integers(len(sites))) if tried else int(np.argmax(found))
        if self._last is not None:
            self._last.following = table[:_MOST_SITES]
            self._remember(self._last)
        energy_j = estimate(state.task, sites[at]).energy_j
        deadline_s = state.task.context.objective.deadline_s or USUAL_DEADLINE_S
        self._last = _Choice(table[at].copy(), deadline_s, energy_j)
        self._awaited.note(state.task.id, self._last)
        told = {site.name: -float(value) for site, value in zip(sites, found, strict=True)}
        return at_site(
            state,
            sites[at].name,
            told,
            policy=self._policy.name,
            constraint=bound or ("tried by chance" if tried else None),
        )

    def learn(self, outcome: OffloadOutcome) -> None:
        """Keeps what came of the choice, and makes the steps."""
        if (choice := self._awaited.take(outcome.id)) is None:
            return
        if outcome.completion_s is None:
            choice.reward = -self._weights.dropped
        else:
            cost = self._weights.cost(outcome.completion_s, choice.deadline_s, choice.energy_j, outcome.cost)
            choice.reward = -cost
        self._remember(choice)
        if len(self._memory) < self._policy.batch:
            return
        for _ in range(self._policy.steps):
            self._learner.update(self._memory.draw(self._policy.batch, self._dice))

    def _remember(self, choice: _Choice) -> None:
        """Once both are there: what came of it, and what could be chosen next."""
        if choice.reward is not None and choice.following is not None:
            self._memory.add(choice.features, choice.reward, choice.following)
            choice.following = None


class _Choice:
    """One choice until all of it is known."""

    __slots__ = ("deadline_s", "energy_j", "features", "following", "reward")

    def __init__(self, features: Array, deadline_s: float, energy_j: float) -> None:
        self.features = features
        self.deadline_s = deadline_s
        self.energy_j = energy_j
        self.reward: float | None = None
        self.following: Array | None = None
