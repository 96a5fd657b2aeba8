"""Local or remote, by the offload policies that the simulator knows too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad import choice
from pentad.choice import Choice
from pentad.model.routing import estimates
from pentad.model.routing.base import Candidate, RouterInput
from pentad.ranges import in_range
from pentad.resource.offloading.base import OffloadInput, OffloadPolicy, OffloadTask, Site
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ByOffloading:
    """Serves a request that names no model, or `auto`, where an offload policy says: here or remotely.

    A model that runs here is a site of this device, a remote backend one of somebody else. The policy
    sees their queue, measured speed (the way there is part of it), price and load; the label `local` and
    `max_cost` leave out what they forbid. A model that was not measured lately is taken to be fast, so
    that it is measured. A policy that learns starts anew with each request.
    Exactness: lossy where it changes the model; the metric is the quality that the catalogue and the
    settings state.
    """

    policy: str = "fastest"
    """The offload policy, as `pentad strategies offload` lists them; with options as NAME:OPTION=VALUE."""
    answer_tokens: int = 256
    """Assumed of answers whose length nobody limits or expects."""
    fresh_s: float = 300.0
    """A speed that was measured longer ago is not believed."""

    name: ClassVar[str] = "offload"
    enforces: ClassVar[frozenset[str]] = frozenset({"min_quality"})

    def __post_init__(self) -> None:
        in_range("answer_tokens", self.answer_tokens, least=1)
        in_range("fresh_s", self.fresh_s, above=0)
        policy: OffloadPolicy = choice.build("offload", Choice.of(self.policy))
        policy.start()  # one that must be trained first says so here, not with the first request

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The choice. Raises Infeasible where no model is good enough, or cheap enough for `max_cost`."""
        request = state.request
        able = estimates.able(state)
        good = estimates.good_enough(able, request.context.objective.min_quality or 0.0)
        task = OffloadTask(
            id=request.id,
            prompt_tokens=estimates.prompt_tokens(request),
            answer_tokens=estimates.answer_tokens(request, self.answer_tokens) * request.sampling.n,
            context=request.context,
        )
        sites = tuple(self._site(name, candidate, state.now_s) for name, candidate in good.items())
        policy: OffloadPolicy = choice.build("offload", Choice.of(self.policy))
        chosen, decision = policy.start().choose(OffloadInput(task=task, sites=sites, now_s=state.now_s))
        scores = dict(decision.candidates)
        return chosen, replace(
            decision,
            layer="model",
            policy=self.name,
            subject="model",
            candidates=tuple((name, scores.get(name)) for name in able),
        )

    def _site(self, name: str, candidate: Candidate, now_s: float) -> Site:
        """A served model as an offload policy sees it."""
        speed, load, price = candidate.speed, candidate.load, candidate.price
        fresh = speed is not None and now_s - speed.at_s <= self.fresh_s
        running = int(load.get("running", 0))
        return Site(
            name=name,
            kind="remote" if candidate.can.remote else "device",
            # How many it computes at once is not told; once some wait, it is what runs.
            slots=max(1, running),
            running=running,
            waiting=int(load.get("waiting", 0)),
            prompt_token_s=speed.first_s(1) if speed is not None and fresh else 0.0,
            token_s=speed.token_s if speed is not None and fresh else 0.0,
            price_per_prompt_token=price.at_most(1, 0),
            price_per_token=price.at_most(0, 1),
            served=_served(load),
        )


def _served(load: Mapping[str, float]) -> int:
    """Requests that a backend has been given: remote ones count them, engines what became of them."""
    ended = ("requests_finished_total", "requests_cancelled_total", "requests_failed_total")
    own = sum(load.get(name, 0.0) for name in (*ended, "running", "waiting"))
    return int(load.get("requests_total", own))
