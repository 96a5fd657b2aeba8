"""Groups of streams that share groups of devices: bursts of one stream use what the others leave idle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.resource.scaling.sessions import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamGroup:
    """Streams whose models are all on each device of the group."""

    streams: tuple[Session, ...]
    devices: int

    @property
    def work(self) -> float:
        """Devices that its mean rates keep busy."""
        return sum(work_of(stream) for stream in self.streams)

    @property
    def burst_tolerance(self) -> float:
        """How many times its mean load it could answer."""
        return self.devices / self.work if self.work else float("inf")


def work_of(stream: Session) -> float:
    """Devices that a stream's mean rate keeps busy; one that is too slow for its deadline counts alone."""
    able = stream.device_per_s or 1 / stream.batch_s(1)
    return stream.rate_per_s / able


def grouped(streams: Sequence[Session], devices: int) -> tuple[StreamGroup, ...]:
    """Streams in as few groups as their models fit into memory, and devices by load, so that all tolerate
    bursts.

    The largest models are placed first, each into the group with the least load that has room for it. Then
    each group has a device, and the rest goes one by one to the group with the least burst tolerance.

    Raises:
        Infeasible: there are fewer devices than groups.

    Source: SHEPHERD (Zhang et al., NSDI'23, section 4, HERD). Our difference: greedy, where HERD solves an
    integer program that maximises the least burst tolerance under the same memory limits.
    """
    active = sorted((stream for stream in streams if stream.rate_per_s > 0), key=lambda each: -each.memory)
    if not active:
        return ()
    count = _least_groups(active)
    if count > devices:
        raise Infeasible(
            f"the models of {len(active)} streams fill the memory of {count} devices, there are {devices}",
            hint="add devices, or serve fewer or smaller models",
            param="devices",
        )
    while (members := _placed(active, count)) is None:
        count += 1
    if count > devices:  # balancing the load broke the memory up
        members, count = _first_fit(active), _least_groups(active)
    given = [1] * count
    loads = [sum(work_of(stream) for stream in each) for each in members]
    for _ in range(devices - count):
        given[min(range(count), key=lambda i: given[i] / loads[i])] += 1
    return tuple(
        StreamGroup(streams=tuple(each), devices=number) for each, number in zip(members, given, strict=True)
    )


def _first_fit(active: Sequence[Session]) -> list[list[Session]]:
    groups: list[list[Session]] = []
    for stream in active:
        room = [each for each in groups if _memory(each) + stream.memory <= 1 + 1e-9]
        if room:
            room[0].append(stream)
        else:
            groups.append([stream])
    return groups


def _least_groups(active: Sequence[Session]) -> int:
    return len(_first_fit(active))


def _placed(active: Sequence[Session], count: int) -> list[list[Session]] | None:
    """The streams in so many groups of balanced load; None where memory does not suffice that way."""
    groups: list[list[Session]] = [[] for _ in range(count)]
    for stream in active:
        room = [each for each in groups if _memory(each) + stream.memory <= 1 + 1e-9]
        if not room:
            return None
        min(room, key=lambda each: sum(work_of(other) for other in each)).append(stream)
    return groups


def _memory(streams: Sequence[Session]) -> float:
    return sum(stream.memory for stream in streams)


def kept_devices(
    groups: Sequence[StreamGroup], now: Mapping[str, set[str]], devices: Sequence[str]
) -> dict[str, set[str]]:
    """Which models each device is to have: each group takes the devices that have most of its models
    already."""
    free = list(devices)
    given: dict[str, set[str]] = {}
    for group in sorted(groups, key=lambda each: -each.work):
        models = {stream.model for stream in group.streams}
        free.sort(
            key=lambda device: (-len(models & now.get(device, set())), len(now.get(device, set()) - models))
        )
        for device in free[: group.devices]:
            given[device] = set(models)
        free = free[group.devices :]
    return given
