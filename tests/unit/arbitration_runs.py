"""Random agents that hold and wait, run against an allocation by a clock of their own."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pentad.resource.arbitration.allocation import Allocation


class Shared(Protocol):
    """What agents take from: ours, or a baseline."""

    def enter(self, holder: str, claim: Mapping[str, int], *, tenant: str = "default") -> None: ...

    def ask(self, holder: str, wants: Mapping[str, int]) -> tuple[str, ...]: ...

    def leave(self, holder: str) -> tuple[str, ...]: ...


class WhoFits:
    """The baseline: whoever asks for what is there gets it; those who wait, in the order of their asking."""

    def __init__(self, capacity: Mapping[str, int]) -> None:
        self._free = Counter(capacity)
        self._held: dict[str, Counter[str]] = {}
        self._queue: dict[str, Mapping[str, int]] = {}

    def enter(self, holder: str, claim: Mapping[str, int], *, tenant: str = "default") -> None:
        self._held[holder] = Counter()

    def ask(self, holder: str, wants: Mapping[str, int]) -> tuple[str, ...]:
        self._queue[holder] = wants
        return self._grant()

    def leave(self, holder: str) -> tuple[str, ...]:
        self._free.update(self._held.pop(holder))
        return self._grant()

    def _grant(self) -> tuple[str, ...]:
        granted = []
        for holder, wants in list(self._queue.items()):
            if all(amount <= self._free[name] for name, amount in wants.items()):
                self._free.subtract(wants)
                self._held[holder].update(wants)
                del self._queue[holder]
                granted.append(holder)
        return tuple(granted)


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Takes parts of its claim one after the other, works on each, and gives all back at its end."""

    name: str
    tenant: str
    parts: tuple[tuple[Mapping[str, int], float], ...]
    """What it asks for, and the seconds until it goes on."""
    pause_s: float = 0.0
    """Between two of its rounds."""
    rounds: int = 1

    @property
    def claim(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for wants, _ in self.parts:
            total.update(wants)
        return total


@dataclass(kw_only=True)
class Outcome:
    """What came of a run."""

    unfinished: int = 0
    """Agents that wait for each other in a circle."""
    waits_s: dict[str, list[float]] = field(default_factory=dict)
    """By agent, how long each of its rounds waited in all."""


def played(shared: Shared, agents: list[Agent]) -> Outcome:
    """Runs the agents until all have ended or nobody can go on."""
    order = itertools.count()
    outcome = Outcome(waits_s={agent.name: [] for agent in agents})
    by_name = {agent.name: agent for agent in agents}
    at = {agent.name: -1 for agent in agents}
    left = {agent.name: agent.rounds for agent in agents}
    asked_s: dict[str, float] = {}
    waited_s: Counter[str] = Counter()
    events: list[tuple[float, int, str]] = [(0.0, next(order), agent.name) for agent in agents]
    unfinished = set(by_name)

    def granted(name: str, now_s: float) -> None:
        waited_s[name] += now_s - asked_s[name]  # type: ignore[assignment]
        heapq.heappush(events, (now_s + by_name[name].parts[at[name]][1], next(order), name))

    while events:
        now_s, _, name = heapq.heappop(events)
        agent = by_name[name]
        if at[name] < 0:
            shared.enter(name, agent.claim, tenant=agent.tenant)
        at[name] += 1
        if at[name] < len(agent.parts):
            asked_s[name] = now_s
            for other in shared.ask(name, agent.parts[at[name]][0]):
                granted(other, now_s)
            continue
        for other in shared.leave(name):
            granted(other, now_s)
        outcome.waits_s[name].append(waited_s.pop(name))
        at[name] = -1
        left[name] -= 1
        if left[name]:
            heapq.heappush(events, (now_s + agent.pause_s, next(order), name))
        else:
            unfinished.discard(name)
    outcome.unfinished = len(unfinished)
    return outcome


def random_agents(draw: np.random.Generator) -> tuple[dict[str, int], dict[str, int], list[Agent]]:
    """Capacities, quotas and agents of one random run; every claim can be met alone."""
    names = ("model", "kv", "tool")
    capacity = {name: int(draw.integers(1, 5)) for name in names}
    quota = {name: int(draw.integers(1, capacity[name] + 1)) for name in names if draw.random() < 0.5}
    agents = []
    for i in range(int(draw.integers(3, 8))):
        left = {name: quota.get(name, capacity[name]) for name in names}
        parts = []
        for _ in range(int(draw.integers(2, 5))):
            name = names[int(draw.integers(3))]
            if left[name]:
                amount = int(draw.integers(1, left[name] + 1))
                left[name] -= amount
                parts.append(({name: amount}, float(draw.exponential())))
        tenant = f"t{draw.integers(2)}"
        agents.append(Agent(name=f"a{i}", tenant=tenant, parts=tuple(parts), rounds=int(draw.integers(1, 3))))
    return capacity, quota, agents


def circles(runs: int, seed: int) -> tuple[int, int]:
    """Of so many random runs, those that end in a circle of waiting: with our rules, and without."""
    ours = theirs = 0
    for i in range(runs):
        capacity, quota, agents = random_agents(np.random.default_rng((seed, i)))
        ours += bool(played(Allocation(capacity, quota), agents).unfinished)
        theirs += bool(played(WhoFits(capacity), agents).unfinished)
    return ours, theirs
