"""Instances of several types that compute one request at a time, out of one queue, matched to its
requests."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pentad.resource.assignment import least_cost_assignment
from pentad.resource.scaling.instance_mix import InstanceType


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A request that waits."""

    arrived_s: float
    size: float


Matcher = Callable[[Sequence[Queued], Sequence[tuple[InstanceType, float]], float], Sequence[int | None]]
"""From the requests that wait, the instances with the instant at which each is free, and now: who goes
where."""


def first_come(
    queue: Sequence[Queued], instances: Sequence[tuple[InstanceType, float]], now_s: float
) -> list[int | None]:
    """The first request to the first idle instance, whatever both are."""
    idle = [i for i, (_, free_s) in enumerate(instances) if free_s <= now_s]
    return [idle[i] if i < len(idle) else None for i in range(len(queue))]


def matched(deadline_s: float) -> Matcher:
    """Requests to instances at the least weighted time in all, by bipartite matching.

    The time of a pair is until the request would be done; what would be too late costs ten deadlines. An
    instance's weight is how fast it is beside the fastest, so a slow one is taken where it suffices.

    Source: Kairos (Li et al., HPDC'23, section 4.2).
    """

    def match(
        queue: Sequence[Queued], instances: Sequence[tuple[InstanceType, float]], now_s: float
    ) -> list[int | None]:
        found: list[int | None] = [None] * len(queue)
        first = queue[: len(instances)]
        largest = max(each.size for each in first)
        fastest = min(kind.seconds(largest) for kind, _ in instances)
        costs = []
        for request in first:
            row = []
            for kind, free_s in instances:
                took_s = max(0.0, free_s - now_s) + kind.seconds(request.size)
                late = now_s - request.arrived_s + took_s > deadline_s
                row.append((10 * deadline_s if late else took_s) * fastest / kind.seconds(largest))
            costs.append(row)
        for i, at in enumerate(least_cost_assignment(costs)):
            if instances[at][1] <= now_s:
                found[i] = at
        return found

    return match


def completions(types: Sequence[InstanceType], requests: Sequence[Queued], match: Matcher) -> list[float]:
    """How long each request takes from its arrival to its end, in the order of `requests`.

    Args:
        types: of each instance.
        requests: in the order of arrival.
        match: who goes where; asked at each arrival and each end as long as requests wait.
    """
    free_s = [0.0] * len(types)
    took = [0.0] * len(requests)
    waiting: list[int] = []
    ends: list[float] = []
    at = 0
    while at < len(requests) or waiting:
        next_s = requests[at].arrived_s if at < len(requests) else float("inf")
        now_s = min(next_s, ends[0] if ends else float("inf"))
        while ends and ends[0] <= now_s:
            heapq.heappop(ends)
        while at < len(requests) and requests[at].arrived_s <= now_s:
            waiting.append(at)
            at += 1
        if not waiting or min(free_s) > now_s:
            continue
        chosen = match([requests[i] for i in waiting], list(zip(types, free_s, strict=True)), now_s)
        for i, instance in zip(waiting, chosen, strict=True):
            if instance is not None:
                free_s[instance] = now_s + types[instance].seconds(requests[i].size)
                took[i] = free_s[instance] - requests[i].arrived_s
                heapq.heappush(ends, free_s[instance])
        waiting = [i for i, instance in zip(waiting, chosen, strict=True) if instance is None]
    return took
