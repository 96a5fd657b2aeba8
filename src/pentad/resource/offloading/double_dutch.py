"""Requests buy slots of sites in a double Dutch auction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.offloading.auction import double_dutch
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
class DoubleDutch:
    """Sells a request to the site that asks least, if that is no more than the request is worth.

    A site asks for the seconds that the request would take there, and for its money at `seconds_per_money`. A
    request bids its deadline, or `worth_s` without one. Where no site asks so little there is no trade, and
    the least ask is taken all the same, for somebody must compute it; the decision says so. Lossless.

    Source: double Dutch auction between devices, edge and cloud, as Xu et al. use it; a market here holds the
    one request that is to be placed, since requests are placed as they come.
    """

    seconds_per_money: float = 1.0
    """Seconds of waiting that a unit of money is worth, 0 or more."""
    worth_s: float = 60.0
    """What a request without a deadline bids, above 0."""

    name: ClassVar[str] = "double-dutch"

    def __post_init__(self) -> None:
        in_range("seconds_per_money", self.seconds_per_money, least=0)
        in_range("worth_s", self.worth_s, above=0)

    def start(self, seed: int = 0) -> Offloading:  # noqa: ARG002 - draws nothing
        return _Auctioneer(self)

    def cost(self, sites: int) -> float:
        return 1e-4 + 2e-6 * sites


class _Auctioneer:
    """Keeps nothing between choices."""

    def __init__(self, policy: DoubleDutch) -> None:
        self._policy = policy

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        sites, bound = permitted(state)
        found = [estimate(state.task, site) for site in sites]
        asks = [each.completion_s + self._policy.seconds_per_money * each.cost for each in found]
        deadline_s = state.task.context.objective.deadline_s
        market = double_dutch([self._policy.worth_s if deadline_s is None else deadline_s], asks)
        at = market.pairs[0][1] if market.pairs else asks.index(min(asks))
        scores = {site.name: ask for site, ask in zip(sites, asks, strict=True)}
        chosen = sites[at].name
        return at_site(
            state,
            chosen,
            scores,
            policy=self._policy.name,
            constraint=bound or (None if market.pairs else "no trade: every site asks more than it is worth"),
        )

    def learn(self, outcome: OffloadOutcome) -> None:
        """Has nothing to learn."""
