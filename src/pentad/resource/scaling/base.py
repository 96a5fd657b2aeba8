"""Scaling: what a scaler sees of a fleet, and what it may do about it.

place (spare) --start--> starting --cold start--> ready --stop--> draining --idle--> place (spare)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pentad.types import Decision

MemberState = Literal["starting", "ready", "draining"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A replica that is up, coming up or going down."""

    name: str
    state: MemberState
    running: int = 0
    waiting: int = 0
    slots: int = 1
    """Requests that it computes at once."""
    price_per_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a replica of a model could be started now."""

    name: str
    slots: int = 1
    cold_start_s: float = 0.0
    """From the start to the first request."""
    price_per_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The replicas of one model."""

    members: tuple[Member, ...] = ()
    places: tuple[Place, ...] = ()
    waiting: int = 0
    """Requests that no replica has been given, since none is ready."""
    arrived: int = 0
    """Requests so far; what a forecast counts."""

    @property
    def in_flight(self) -> int:
        """Requests that have arrived and not ended."""
        return self.waiting + sum(member.running + member.waiting for member in self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalerInput:
    """The state that one decision is made from."""

    pools: Mapping[str, Pool]
    """By model. Places of several pools may stand for one device; who starts first has it."""
    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPlan:
    """What is to be started and stopped; a stopped replica first ends what it was given."""

    start: tuple[str, ...] = ()
    """Names of places, or of draining members that are kept."""
    stop: tuple[str, ...] = ()
    """Names of members."""
    decisions: tuple[Decision, ...] = field(default=())
    """One per pool that changes."""


class Scaling(Protocol):
    """A scaler at work on one fleet."""

    def decide(self, state: ScalerInput) -> ScalingPlan:
        """What to change now. Called at the start and every `interval_s` after it, in order of time."""
        ...


class FleetScaler(Protocol):
    """Decides how many replicas of which model are up (coverage.md, interface 13).

    Equal states in equal order give equal plans.
    """

    @property
    def name(self) -> str: ...

    @property
    def interval_s(self) -> float:
        """Seconds between decisions."""
        ...

    @property
    def least_replicas(self) -> int:
        """Fewest replicas of a model that it keeps up whatever the load; not to be used where less can be."""
        ...

    def start(self, seed: int = 0) -> Scaling:
        """The scaler's state for one fleet."""
        ...

    def cost(self, members: int) -> float:
        """Seconds that one decision over so many replicas takes, of the right order, on one core."""
        ...


def to_size(
    pool: Pool, wanted: int, *, policy: str, model: str, now_s: float, constraint: str | None
) -> ScalingPlan:
    """The plan that brings a pool to `wanted` replicas, or as near as places allow.

    Draining replicas are kept before cold ones are started, then the cheapest place is taken, then the
    quickest to start; the least loaded replica is stopped, of equal ones the dearest, then the last.
    """
    up = [member for member in pool.members if member.state != "draining"]
    start: list[str] = []
    stop: list[str] = []
    if wanted > len(up):
        kept = [member.name for member in pool.members if member.state == "draining"]
        cold = sorted(pool.places, key=lambda place: (place.price_per_s, place.cold_start_s))
        start = [*kept, *(place.name for place in cold)][: wanted - len(up)]
        if len(start) < wanted - len(up):
            constraint = "places"
    elif wanted < len(up):
        order = sorted(range(len(up)), key=lambda i: (up[i].running + up[i].waiting, -up[i].price_per_s, -i))
        stop = [up[i].name for i in order[: len(up) - wanted]]
    if not start and not stop:
        return ScalingPlan()
    decision = Decision(
        layer="resource",
        policy=policy,
        subject=f"replicas of {model}",
        chosen=str(len(up) + len(start) - len(stop)),
        candidates=(("now", float(len(up))), ("wanted", float(wanted)), ("in flight", float(pool.in_flight))),
        constraint=constraint,
        at_s=now_s,
    )
    return ScalingPlan(start=tuple(start), stop=tuple(stop), decisions=(decision,))


def joined(plans: list[ScalingPlan]) -> ScalingPlan:
    """The plans of several pools as one."""
    return ScalingPlan(
        start=tuple(name for plan in plans for name in plan.start),
        stop=tuple(name for plan in plans for name in plan.stop),
        decisions=tuple(decision for plan in plans for decision in plan.decisions),
    )
