"""Active inference: a small model of what comes of a choice, and the least expected free energy."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.offloading.awaited import Awaited
from pentad.resource.offloading.base import (
    Offloading,
    OffloadInput,
    OffloadOutcome,
    Site,
    at_site,
    estimate,
    permitted,
)
from pentad.resource.offloading.scenarios import USUAL_DEADLINE_S
from pentad.types import Decision

_EDGES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5)
"""Of the bins of the estimated time, in deadlines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveInference:
    """Takes the site with the least expected free energy: unpreferred outcomes less what the choice teaches.

    The outcome of a request is that it meets its deadline or does not. How likely that is, the agent believes
    per machine and per estimated time in deadlines, as Beta distributions that each outcome updates. No
    reward is given: the agent prefers met deadlines (`preference`) and short times, and values what it does
    not know yet. Beliefs fade, so that a machine that has changed is believed in or doubted anew. Lossless.

    Source: He et al., "Large language models (LLMs) inference offloading and resource allocation in
    cloud-edge computing: an active inference approach", IEEE TMC 2024. Ours has counts in place of neural
    networks, and looks one choice ahead.
    """

    preference: float = 0.99
    """How likely the agent wants a deadline to be met, above 0 and below 1."""
    curiosity: float = 1.0
    """What a nat of information counts against a nat of preference, 0 or more."""
    haste: float = 0.2
    """Nats that a time as long as the deadline counts, 0 or more."""
    kept: float = 0.99
    """Share of its counts that a belief keeps behind each outcome, above 0 to 1."""

    name: ClassVar[str] = "active-inference"

    def __post_init__(self) -> None:
        in_range("preference", self.preference, above=0, most=1 - 1e-9)
        in_range("curiosity", self.curiosity, least=0)
        in_range("haste", self.haste, least=0)
        in_range("kept", self.kept, above=0, most=1)

    def start(self, seed: int = 0) -> Offloading:  # noqa: ARG002 - draws nothing
        return _Believing(self)

    def cost(self, sites: int) -> float:
        return 1e-5 + 1e-5 * sites


def mutual_information(met: float, missed: float) -> float:
    """Nats that one more outcome is expected to tell of the chance behind Beta(met, missed), both above 0."""
    total = met + missed
    share = met / total
    told = -share * math.log(share) - (1 - share) * math.log(1 - share)
    known = -share * (_digamma(met + 1) - _digamma(total + 1))
    known -= (1 - share) * (_digamma(missed + 1) - _digamma(total + 1))
    return max(0.0, told - known)


def _digamma(x: float) -> float:
    """By recurrence and its asymptotic series; to 1e-8 for x above 0."""
    found = 0.0
    while x < 6:
        found -= 1 / x
        x += 1
    square = 1 / (x * x)
    return found + math.log(x) - 0.5 / x - square * (1 / 12 - square * (1 / 120 - square / 252))


class _Believing:
    """Per machine and bin of estimated time, how many deadlines were met and missed."""

    def __init__(self, policy: ActiveInference) -> None:
        self._policy = policy
        self._counts: dict[tuple[str, int], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        self._awaited: Awaited[tuple[tuple[str, int], float]] = Awaited()
        """(cell, deadline) of each choice."""

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        sites, bound = permitted(state)
        deadline_s = state.task.context.objective.deadline_s or USUAL_DEADLINE_S
        cells, scores = {}, {}
        for site in sites:
            taken = estimate(state.task, site).completion_s / deadline_s
            cells[site.name] = _cell(site, taken)
            scores[site.name] = self._free_energy(cells[site.name]) + self._policy.haste * taken
        chosen = min(scores, key=scores.__getitem__)
        self._awaited.note(state.task.id, (cells[chosen], deadline_s))
        return at_site(state, chosen, scores, policy=self._policy.name, constraint=bound)

    def learn(self, outcome: OffloadOutcome) -> None:
        """Updates the belief behind the choice; a request that failed has missed its deadline."""
        if (awaited := self._awaited.take(outcome.id)) is None:
            return
        cell, deadline_s = awaited
        met = outcome.completion_s is not None and outcome.completion_s <= deadline_s
        kept = self._policy.kept
        before = self._counts[cell]
        self._counts[cell] = kept * before[0] + met, kept * before[1] + (not met)

    def _free_energy(self, cell: tuple[str, int]) -> float:
        """Nats: how unlike the preference the outcome is expected to be, less what it would tell."""
        met, missed = self._belief(cell)
        share, preference = met / (met + missed), self._policy.preference
        unpreferred = -share * math.log(preference) - (1 - share) * math.log(1 - preference)
        return unpreferred - self._policy.curiosity * mutual_information(met, missed)

    def _belief(self, cell: tuple[str, int]) -> tuple[float, float]:
        """Its own counts over a prior that believes the estimate, and half over the neighbouring bins."""
        machine, place = cell
        met, missed = (1.5, 0.5) if place < _EDGES.index(1.0) + 1 else (0.5, 1.5)
        for step, weight in ((-1, 0.5), (0, 1.0), (1, 0.5)):
            found = self._counts.get((machine, place + step), (0.0, 0.0))
            met += weight * found[0]
            missed += weight * found[1]
        return met, missed


def _cell(site: Site, taken: float) -> tuple[str, int]:
    return site.machine or site.name, sum(taken > edge for edge in _EDGES)
