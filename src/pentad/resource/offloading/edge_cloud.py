"""Between machines nearby and the cloud: by load, link, and what came of earlier choices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

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
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCloud:
    """Takes the site with the shortest estimated completion, corrected by what its requests met.

    The estimate counts sending, the transfers that the link is busy with, the queue, prompt and answer. It
    is multiplied by how many times longer than estimated requests took at the site lately. One that is
    overdue counts before it ends, so a link or machine that has become slow is left within one
    completion. What was learnt is forgotten with time, so a site that was slow is tried again. Lossless.

    Source: the survey's edge-cloud collaboration (section I): requests are split by live load and link
    state; the correction is ours. How one model is split between devices is the plan's matter.
    """

    rate: float = 0.3
    """What a new outcome counts against the earlier ones of its site, above 0 to 1."""
    forget_s: float = 60.0
    """After so long without an outcome two thirds of a site's correction are forgotten."""

    name: ClassVar[str] = "edge-cloud"

    def __post_init__(self) -> None:
        in_range("rate", self.rate, above=0, most=1)
        in_range("forget_s", self.forget_s, above=0)

    def start(self, seed: int = 0) -> Offloading:  # noqa: ARG002 - draws nothing
        return _Corrected(self)

    def cost(self, sites: int) -> float:
        return 2e-6 * sites


class _Corrected:
    """Per site, the logarithm of taken over estimated time, and the choices that are awaited."""

    def __init__(self, policy: EdgeCloud) -> None:
        self._policy = policy
        self._logs: dict[str, tuple[float, float]] = {}
        """(logarithm, when it was learnt)."""
        self._awaited: Awaited[tuple[str, float, float]] = Awaited()
        """(site, estimate, when) of each choice."""

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        sites, bound = permitted(state)
        plain = {site.name: estimate(state.task, site).completion_s for site in sites}
        overdue = self._overdue(state.now_s)
        scores = {
            name: seconds * math.exp(max(self._log(name, state.now_s), overdue.get(name, 0.0)))
            for name, seconds in plain.items()
        }
        chosen = min(scores, key=scores.__getitem__)
        self._awaited.note(state.task.id, (chosen, plain[chosen], state.now_s))
        return at_site(state, chosen, scores, policy=self._policy.name, constraint=bound)

    def learn(self, outcome: OffloadOutcome) -> None:
        """Corrects the site by what the request took there."""
        if (awaited := self._awaited.take(outcome.id)) is None:
            return
        site, expected_s, at_s = awaited
        if outcome.completion_s is None or expected_s <= 0 or outcome.completion_s <= 0:
            return
        now_s = at_s + outcome.completion_s
        before, rate = self._log(site, now_s), self._policy.rate
        seen = math.log(outcome.completion_s / expected_s)
        self._logs[site] = before + rate * (seen - before), now_s

    def _log(self, site: str, now_s: float) -> float:
        value, at_s = self._logs.get(site, (0.0, now_s))
        return value * math.exp(-max(0.0, now_s - at_s) / self._policy.forget_s)

    def _overdue(self, now_s: float) -> dict[str, float]:
        """Per site, how many times the estimate its most overdue request has taken, as a logarithm."""
        found: dict[str, float] = {}
        for site, expected_s, at_s in self._awaited.values():
            if expected_s > 0 and now_s - at_s > 2 * expected_s:
                found[site] = max(found.get(site, 0.0), math.log((now_s - at_s) / expected_s))
        return found
