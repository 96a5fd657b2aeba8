"""The cheapest site at which a request's wishes are expected to be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.offloading.base import (
    Estimate,
    Offloading,
    OffloadInput,
    OffloadOutcome,
    Site,
    at_site,
    estimate,
    permitted,
)
from pentad.types import Decision, Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class ForObjective:
    """Takes, of the sites that keep the request's objective, the cheapest; where none does, the fastest.

    Time to the first token, time between tokens and the deadline are compared with the site's estimate, to
    which `margin` is added. Equally cheap sites: the one that is done first. A request without wishes goes
    where it costs least. Label and price limit are kept as by every policy. Lossless.

    Source: the choice of the cheapest variant that meets an SLO (INFaaS, Romero et al., ATC'21, section
    5); our difference: the choice is among places, by their present queues.
    """

    margin: float = 0.2
    """Of the estimated times, added before they are compared."""

    name: ClassVar[str] = "objective"

    def __post_init__(self) -> None:
        in_range("margin", self.margin, least=0, most=100)

    def start(self, seed: int = 0) -> Offloading:  # noqa: ARG002 - draws nothing
        return _ForObjective(self)

    def cost(self, sites: int) -> float:
        return 2e-6 * sites

    def missed(self, objective: Objective, found: Estimate, site: Site) -> tuple[str, ...]:
        """The wishes that the site is not expected to keep."""
        times = {
            "ttft_s": (found.send_s + found.wait_s + found.prompt_s, objective.ttft_s),
            "inter_token_s": (site.token_s, objective.inter_token_s),
            "deadline_s": (found.completion_s, objective.deadline_s),
        }
        more = 1 + self.margin
        return tuple(name for name, (s, most) in times.items() if most is not None and s * more > most)


class _ForObjective:
    """Keeps nothing between choices."""

    __slots__ = ("_policy",)

    def __init__(self, policy: ForObjective) -> None:
        self._policy = policy

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        sites, bound = permitted(state)
        objective = state.task.context.objective
        found = {site.name: estimate(state.task, site) for site in sites}
        missed = {site.name: self._policy.missed(objective, found[site.name], site) for site in sites}
        keep = [name for name in found if not missed[name]]
        if keep:
            chosen = min(keep, key=lambda name: (found[name].cost, found[name].completion_s))
        else:
            chosen = min(found, key=lambda name: (len(missed[name]), found[name].completion_s))
        wishes = dict.fromkeys(wish for names in missed.values() for wish in names)
        scores = {name: each.cost for name, each in found.items()}
        return at_site(
            state, chosen, scores, policy=self._policy.name, constraint=bound or ", ".join(wishes) or None
        )

    def learn(self, outcome: OffloadOutcome) -> None:
        """Has nothing to learn."""
