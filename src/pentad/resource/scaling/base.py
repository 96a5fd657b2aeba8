"""Scaling: what a scaler sees of a fleet, and what it may do about it.

place (spare) --start--> starting --cold start--> ready --stop--> draining --idle--> place (spare)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pentad.resource.scaling.next_stages import Call
from pentad.resource.scaling.speed import Speed
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
    devices: tuple[str, ...] = ()
    """What it stands on; empty: a device of its own."""
    speed: Speed | None = None
    """None: not known."""
    quality: float | None = None
    """Share of requests that this variant of the model answers well, 0 to 1; None: not known."""
    host: str = ""
    """The machine that its devices belong to; empty: one that always runs."""
    spot: bool = False
    """Whether it may be taken away."""
    leaves_s: float | None = None
    """The announced instant at which it is taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a replica of a model could be started now."""

    name: str
    slots: int = 1
    cold_start_s: float = 0.0
    """From the start to the first request."""
    price_per_s: float = 0.0
    devices: tuple[str, ...] = ()
    """What it stands on; empty: a device of its own."""
    speed: Speed | None = None
    """None: not known."""
    quality: float | None = None
    """Of the variant of the model, as a member's."""
    host: str = ""
    """The machine that its devices belong to; it has to be added if nothing of it is up."""
    spot: bool = False
    """Whether it may be taken away."""


Replica = Member | Place
"""One that is, or that could be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine that can be added, whatever then runs on it."""

    price_per_s: float = 0.0
    start_s: float = 0.0
    """Before anything can be started on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The replicas of one model."""

    members: tuple[Member, ...] = ()
    places: tuple[Place, ...] = ()
    waiting: int = 0
    """Requests that no replica has been given, since none is ready."""
    arrived: int = 0
    """Requests so far; what a forecast counts."""
    recent: tuple[tuple[int, int], ...] = ()
    """Prompt and answer tokens of the latest requests that ended; empty: not known."""
    deadline_s: float | None = None
    """By when its requests are to be answered; None: nobody says."""

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """All that are or could be."""
        return (*self.members, *self.places)

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
    hosts: Mapping[str, Host] = field(default_factory=dict)
    """Machines that can be added, by name; those that replicas name and that are not here always run."""

    calls: tuple[Call, ...] = ()
    """Model calls of agent runs that began or ended since the decision before, in order."""

    @property
    def hosts_up(self) -> set[str]:
        """Machines on which anything is up."""
        return {member.host for pool in self.pools.values() for member in pool.members}


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

    @property
    def colocates(self) -> bool:
        """Whether models may be up on one device together; they then take turns on it."""
        ...

    def start(self, seed: int = 0) -> Scaling:
        """The scaler's state for one fleet."""
        ...

    def cost(self, members: int) -> float:
        """Seconds that one decision over so many replicas takes, of the right order, on one core."""
        ...


def chosen(pool: Pool, wanted: int) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """What to start and to stop so that a pool has `wanted` replicas, and whether places lack for it.

    Draining replicas are kept before cold ones are started, then the cheapest place is taken, then the
    quickest to start; the least loaded replica is stopped, of equal ones the dearest, then the last.
    """
    up = [member for member in pool.members if member.state != "draining"]
    if wanted > len(up):
        kept = [member.name for member in pool.members if member.state == "draining"]
        cold = sorted(pool.places, key=lambda place: (place.price_per_s, place.cold_start_s))
        start = (*kept, *(place.name for place in cold))[: wanted - len(up)]
        return start, (), len(start) < wanted - len(up)
    order = sorted(range(len(up)), key=lambda i: (up[i].running + up[i].waiting, -up[i].price_per_s, -i))
    return (), tuple(up[i].name for i in order[: len(up) - wanted]), False


def to_size(
    pool: Pool, wanted: int, *, policy: str, model: str, now_s: float, constraint: str | None
) -> ScalingPlan:
    """The plan that brings a pool to `wanted` replicas, or as near as places allow; `chosen` says which."""
    start, stop, short = chosen(pool, wanted)
    return told(
        pool,
        start,
        stop,
        policy=policy,
        model=model,
        now_s=now_s,
        wanted=wanted,
        constraint="places" if short else constraint,
    )


def told(
    pool: Pool,
    start: tuple[str, ...],
    stop: tuple[str, ...],
    *,
    policy: str,
    model: str,
    now_s: float,
    wanted: int,
    constraint: str | None,
    scores: tuple[tuple[str, float | None], ...] = (),
) -> ScalingPlan:
    """A plan for one pool with its decision, which also has `scores`; an empty plan where nothing changes."""
    if not start and not stop:
        return ScalingPlan()
    up = sum(member.state != "draining" for member in pool.members)
    decision = Decision(
        layer="resource",
        policy=policy,
        subject=f"replicas of {model}",
        chosen=str(up + len(start) - len(stop)),
        candidates=(
            ("now", float(up)),
            ("wanted", float(wanted)),
            ("in flight", float(pool.in_flight)),
            *scores,
        ),
        constraint=constraint,
        at_s=now_s,
    )
    return ScalingPlan(start=start, stop=stop, decisions=(decision,))


def joined(plans: list[ScalingPlan]) -> ScalingPlan:
    """The plans of several pools as one."""
    return ScalingPlan(
        start=tuple(name for plan in plans for name in plan.start),
        stop=tuple(name for plan in plans for name in plan.stop),
        decisions=tuple(decision for plan in plans for decision in plan.decisions),
    )
