"""A brain for computing and networks: it perceives, schedules, adapts and governs, and says so each time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

from pentad.ranges import in_range
from pentad.resource.offloading.awaited import Awaited
from pentad.resource.offloading.base import (
    Offloading,
    OffloadInput,
    OffloadOutcome,
    Site,
    estimate,
    permitted,
)
from pentad.resource.offloading.learning.learnt import ByNetwork, LearntOffload
from pentad.types import Decision

_KEPT = 4096
_MOST = 4.0
"""Times as slow as it says: so far a machine is corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cnc(LearntOffload):
    """Matches requests to machines by a trained network, on what it has learnt of them and within rules.

    Four parts act on each choice, and `parts` of the decision tells what each found. Perception: how busy the
    sites are. Adaptation: how many times longer than estimated requests took at a machine lately corrects
    what it says. Governance: label, money and battery leave sites out, and no machine gets more than
    `most_share` of the latest requests. Scheduling: the network's highest value among what is left. Lossless.

    Source: the intelligence-endogenous management platform for computing and network convergence (IEEE
    Network 2024): its four parts, with deep reinforcement learning as the brain. Ours is `deep-q`'s network,
    trained where urgent and patient requests compete.
    """

    rate: float = 0.1
    """What a new outcome counts against the earlier ones of its machine, 0 to 1; 0 does not adapt."""
    most_share: float = 1.0
    """Of the latest requests that one machine may get, above 0 to 1."""
    window: int = 50
    """How many requests these are."""

    name: ClassVar[str] = "cnc"
    training: ClassVar[Mapping[str, Any]] = MappingProxyType({"scenario": "matching"})

    def __post_init__(self) -> None:
        in_range("rate", self.rate, least=0, most=1)
        in_range("most_share", self.most_share, above=0, most=1)
        in_range("window", self.window, least=1)

    def start(self, seed: int = 0) -> Offloading:  # noqa: ARG002 - draws nothing
        return _Brain(self)


class _Brain:
    """The network, what was learnt of each machine, and who got the latest requests."""

    def __init__(self, policy: Cnc) -> None:
        self._policy = policy
        self._network = ByNetwork(policy.name, policy.trained())
        self._logs: dict[str, float] = {}
        """Logarithm of taken over estimated time, by machine."""
        self._awaited: Awaited[tuple[str, float]] = Awaited()
        self._given: deque[str] = deque(maxlen=policy.window)

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        sites, bound = permitted(state)
        governed = self._governed(sites)
        adapted = tuple(self._adapted(site) for site in governed)
        chosen, decision = self._network.choose(replace(state, sites=adapted))
        site = next(each for each in governed if each.name == chosen)
        self._awaited.note(state.task.id, (_machine(site), estimate(state.task, site).completion_s))
        self._given.append(_machine(site))
        told = dict(decision.candidates)
        return chosen, replace(
            decision,
            candidates=tuple((each.name, told.get(each.name)) for each in state.sites),
            constraint=bound or ("most_share" if len(governed) < len(sites) else None),
            parts=(
                ("perception", self._perceived(state)),
                ("adaptation", self._learnt(adapted)),
                ("governance", self._left_out(state, governed, bound)),
                ("scheduling", f"{chosen}, the highest value of {len(governed)}"),
            ),
        )

    def learn(self, outcome: OffloadOutcome) -> None:
        """Corrects what the machine says of itself."""
        if (awaited := self._awaited.take(outcome.id)) is None or outcome.completion_s is None:
            return
        machine, expected_s = awaited
        if expected_s > 0 and outcome.completion_s > 0:
            before = self._logs.get(machine, 0.0)
            seen = math.log(outcome.completion_s / expected_s)
            self._logs[machine] = before + self._policy.rate * (seen - before)

    def _governed(self, sites: tuple[Site, ...]) -> tuple[Site, ...]:
        """Without the machines that have had their share, unless that leaves none."""
        most = self._policy.most_share * self._policy.window
        kept = tuple(site for site in sites if self._given.count(_machine(site)) < most)
        return kept or sites

    def _adapted(self, site: Site) -> Site:
        slower = self._slower(_machine(site))
        if abs(slower - 1) < 0.01:
            return site
        return replace(site, prompt_token_s=site.prompt_token_s * slower, token_s=site.token_s * slower)

    def _slower(self, machine: str) -> float:
        return min(_MOST, max(1 / _MOST, math.exp(self._logs.get(machine, 0.0))))

    def _perceived(self, state: OffloadInput) -> str:
        waits = [estimate(state.task, site).wait_s for site in state.sites]
        free = sum(wait <= 0 for wait in waits)
        return f"{free} of {len(waits)} sites free, the longest wait {max(waits):.3g} s"

    def _learnt(self, sites: tuple[Site, ...]) -> str:
        machines = sorted({_machine(site) for site in sites})
        found = [
            f"{name} x{self._slower(name):.2f}" for name in machines if abs(self._slower(name) - 1) >= 0.01
        ]
        return "slower than they say: " + ", ".join(found) if found else "all machines are as they say"

    def _left_out(self, state: OffloadInput, kept: tuple[Site, ...], bound: str | None) -> str:
        out = len(state.sites) - len(kept)
        return f"{out} sites left out by {bound or 'most_share'}" if out else "no site left out"


def _machine(site: Site) -> str:
    return site.machine or site.name
