"""A control loop over offload policies: another one takes over while the world is not as described."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.choice import Choice, build
from pentad.ranges import in_range
from pentad.resource.offloading.awaited import Awaited
from pentad.resource.offloading.base import (
    Offloading,
    OffloadInput,
    OffloadOutcome,
    OffloadPolicy,
    estimate,
)
from pentad.types import Decision

_KEPT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Realtime:
    """Chooses by `usual` while requests take about what is estimated, and by `changed` once they do not.

    Of the latest `window` requests, those count as surprises that took, or have taken so far, more than
    `slower` times what was estimated of their site. With `surprises` of them the policy is switched, in the
    very decision that sees it; it is switched back when `calm_s` have passed without one. Nothing is
    restarted: both policies are at work all the time and are told the outcomes of their own choices.

    Source: the survey's real-time reaction to environment change (section V-A, challenge 3).
    """

    usual: str = "fastest"
    """Policy of calm times, as --offload takes it."""
    changed: str = "edge-cloud"
    """Policy while load, links or devices are not what they are said to be."""
    slower: float = 2.0
    """How many times the estimate is a surprise, above 1."""
    surprises: int = 2
    """So many of the latest requests switch the policy."""
    window: int = 20
    """Requests that are watched."""
    calm_s: float = 60.0
    """How long there must have been no surprise before the usual policy takes over again."""

    name: ClassVar[str] = "realtime"

    def __post_init__(self) -> None:
        in_range("slower", self.slower, above=1)
        in_range("surprises", self.surprises, least=1)
        in_range("window", self.window, least=self.surprises)
        in_range("calm_s", self.calm_s, least=0)

    def start(self, seed: int = 0) -> Offloading:
        return _Watching(self, seed)

    def cost(self, sites: int) -> float:
        return 1e-5 + 4e-6 * sites


class _Watching:
    """Both policies at work, and what is expected of the requests under way."""

    def __init__(self, policy: Realtime, seed: int) -> None:
        self._policy = policy
        usual: OffloadPolicy = build("offload", Choice.of(policy.usual))
        changed: OffloadPolicy = build("offload", Choice.of(policy.changed))
        self._policies = {"usual": usual.start(seed), "changed": changed.start(seed)}
        self._now = "usual"
        self._surprised_s = float("-inf")
        self._seen: deque[bool] = deque(maxlen=policy.window)
        self._awaited: Awaited[tuple[str, float, float]] = Awaited()
        """(who chose, estimate, when) of each request under way."""

    def choose(self, state: OffloadInput) -> tuple[str, Decision]:
        switched = self._switch(state.now_s)
        site, decision = self._policies[self._now].choose(state)
        expected_s = next(
            estimate(state.task, each).completion_s for each in state.sites if each.name == site
        )
        self._awaited.note(state.task.id, (self._now, expected_s, state.now_s))
        told = f"switched to {self._chosen()!r}" if switched else f"by {self._chosen()!r}"
        return site, replace(decision, policy=self._policy.name, constraint=decision.constraint or told)

    def learn(self, outcome: OffloadOutcome) -> None:
        """Tells the policy that chose, and notes whether it was a surprise."""
        if (awaited := self._awaited.take(outcome.id)) is None:
            return
        who, expected_s, at_s = awaited
        self._policies[who].learn(outcome)
        if outcome.completion_s is not None:
            surprise = outcome.completion_s > self._policy.slower * expected_s
            self._seen.append(surprise)
            if surprise:
                self._surprised_s = max(self._surprised_s, at_s + outcome.completion_s)

    def _switch(self, now_s: float) -> bool:
        """Looks at what is overdue too; returns whether the policy has changed."""
        slower = self._policy.slower
        overdue = sum(now_s - at_s > slower * expected_s for _, expected_s, at_s in self._awaited.values())
        if overdue:
            self._surprised_s = now_s
        before = self._now
        if overdue + sum(self._seen) >= self._policy.surprises:
            self._now = "changed"
        if now_s - self._surprised_s > self._policy.calm_s:
            self._now = "usual"
            self._seen.clear()
        return self._now != before

    def _chosen(self) -> str:
        return self._policy.usual if self._now == "usual" else self._policy.changed
