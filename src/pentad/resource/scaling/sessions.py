"""Sessions: requests of one model with one deadline, computed in batches; and how many devices hold several.

Squishy bin packing: a session's batch shrinks with the duty cycle of the device that it shares.

    device, one duty cycle:  |a: batch of 8|b: 4|c: 1|  idle  |a: batch of 8|b: 4 ...
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What comes for one model, by when it must be answered, and how long its batches take."""

    model: str
    rate_per_s: float
    deadline_s: float
    fixed_s: float
    """Of a batch, however many requests are in it."""
    item_s: float
    """That each request of a batch adds."""
    most: int = 64
    """Requests in a batch at most."""
    memory: float = 0.0
    """Share of a device's memory that its model takes, 0 to 1."""

    def __post_init__(self) -> None:
        in_range("rate_per_s", self.rate_per_s, least=0)
        in_range("deadline_s", self.deadline_s, above=0)
        in_range("fixed_s", self.fixed_s, least=0)
        in_range("item_s", self.item_s, least=0)
        in_range("fixed_s + item_s", self.batch_s(1), above=0)
        in_range("most", self.most, least=1)
        in_range("memory", self.memory, least=0, most=1)

    def batch_s(self, requests: int) -> float:
        """Seconds that a batch of so many takes."""
        return self.fixed_s + requests * self.item_s

    def largest(self, seconds: float) -> int:
        """The largest batch that takes no longer; 0: not even one request."""
        if self.batch_s(1) > seconds:
            return 0
        if self.item_s <= 0:
            return self.most
        return min(self.most, int((seconds - self.fixed_s) / self.item_s + 1e-9))

    @property
    def device_per_s(self) -> float:
        """Requests per second that a device of its own answers in time.

        A request that just misses a batch waits for it and for its own: two batches fit into a deadline.
        """
        batch = self.largest(self.deadline_s / 2)
        return batch / self.batch_s(batch) if batch else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A session's part of a device: the rate that it takes there, and its batch in each duty cycle."""

    session: Session
    rate_per_s: float
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyCycle:
    """What one device does again and again: a batch of each of its sessions."""

    seconds: float
    loads: tuple[Load, ...]

    @property
    def occupancy(self) -> float:
        """Share of the cycle that is computed in, 0 to 1."""
        return sum(load.session.batch_s(load.batch) for load in self.loads) / self.seconds

    @property
    def memory(self) -> float:
        """Share of the device's memory that its models take."""
        return sum(load.session.memory for load in self.loads)


def pack(sessions: Iterable[Session]) -> tuple[DutyCycle, ...]:
    """Duty cycles, one per device, that together answer all sessions before their deadlines.

    First each session fills whole devices at its best batch; what is left of each is then put, the largest
    first, on the device that is fullest with it. Merged sessions take the shorter duty cycle, so batches
    only shrink and deadlines hold. Greedy; the number of devices is not always the least.

    Raises:
        Infeasible: a session's single request takes longer than its deadline.

    Source: Nexus (Shen et al., SOSP'19, section 6.1, squishy bin packing). Our difference: a session too
    slow to fill even a batch of one in time is run every deadline less a batch, instead of on a device of
    its own.
    """
    cycles: list[DutyCycle] = []
    rests: list[DutyCycle] = []
    for session in sessions:
        if session.rate_per_s <= 0:
            continue
        if not session.largest(session.deadline_s / 2):
            raise Infeasible(
                f"one request of model {session.model!r} takes {session.batch_s(1):.3g} s, of which two must "
                f"fit into its deadline of {session.deadline_s:.3g} s",
                hint="set a longer deadline_s, or add a faster device",
                param="deadline_s",
            )
        whole, rest = _alone(session)
        cycles += whole
        rests += rest
    shared: list[DutyCycle] = []
    for one in sorted(rests, key=lambda cycle: -cycle.occupancy):
        tried = [(merged(each, one), i) for i, each in enumerate(shared)]
        fits = [(made.occupancy, -i, made) for made, i in tried if made is not None]
        if fits:
            _, at, made = max(fits, key=lambda fit: fit[:2])
            shared[-at] = made
        else:
            shared.append(one)
    return (*cycles, *shared)


def _alone(session: Session) -> tuple[list[DutyCycle], list[DutyCycle]]:
    """Devices that a session fills, and what is left of it."""
    batch = session.largest(session.deadline_s / 2)
    seconds = session.batch_s(batch)
    per_s = batch / seconds
    count = int(session.rate_per_s / per_s + 1e-9)
    full = DutyCycle(seconds=seconds, loads=(Load(session=session, rate_per_s=per_s, batch=batch),))
    rest = session.rate_per_s - count * per_s
    if rest <= per_s * 1e-9:
        return [full] * count, []
    # The largest batch that gathers and is computed within the deadline.
    most = 1
    while most < batch and session.batch_s(most + 1) + (most + 1) / rest <= session.deadline_s:
        most += 1
    cycle_s = min(most / rest, session.deadline_s - session.batch_s(most))
    left = DutyCycle(
        seconds=max(cycle_s, session.batch_s(most)),
        loads=(Load(session=session, rate_per_s=rest, batch=most),),
    )
    return [full] * count, [left]


def merged(one: DutyCycle, other: DutyCycle) -> DutyCycle | None:
    """Both on one device, in the shorter cycle; None where time or memory does not suffice."""
    seconds = min(one.seconds, other.seconds)
    loads = tuple(
        Load(session=load.session, rate_per_s=load.rate_per_s, batch=_batch(load, seconds))
        for load in (*one.loads, *other.loads)
    )
    made = DutyCycle(seconds=seconds, loads=loads)
    in_time = all(
        seconds + each.session.batch_s(each.batch) <= each.session.deadline_s + 1e-9 for each in loads
    )
    return made if in_time and made.occupancy <= 1 + 1e-9 and made.memory <= 1 + 1e-9 else None


def _batch(load: Load, seconds: float) -> int:
    """Requests that gather in a cycle, at most the batch that it had."""
    return min(load.batch, max(1, math.ceil(load.rate_per_s * seconds - 1e-9)))


def rates(cycles: Sequence[DutyCycle], model: str) -> list[float]:
    """The requests per second of a model that each device takes."""
    return [sum(load.rate_per_s for load in each.loads if load.session.model == model) for each in cycles]
