"""Devices that move: their link to each station changes along their way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from pentad.errors import InvalidRequest
from pentad.ranges import in_range
from pentad.resource.simulator.links import LinkChange

Place = tuple[float, float]
"""Metres east and north."""


def moving(
    device: str,
    way: Sequence[tuple[float, float, float]],
    stations: Mapping[str, Place],
    *,
    full_rate_m: float = 50.0,
    exponent: float = 3.0,
    least: float = 0.01,
    every_s: float = 1.0,
) -> list[LinkChange]:
    """What becomes of a device's links while it moves: their rate by its distance from each station.

    Up to `full_rate_m` a link carries what the cluster says of it; beyond, the share that Shannon's capacity
    leaves when power falls with the distance to `exponent`, from a signal that is 100 times the noise.

    Args:
        device: who moves, as the cluster file calls it.
        way: (seconds, metres east, metres north) in order of time; straight and even in between.
        stations: the devices that it has links to, and where they stand.
        full_rate_m: distance up to which a link has its full rate.
        exponent: 2 in the open, 3 to 4 in towns.
        least: share below which no link falls, above 0: a lost link is a very slow one.
        every_s: how often the rate changes.

    Raises InvalidRequest for a way that does not go forward in time, or a number out of range.

    Source: log-distance path loss and the capacity of Shannon (1948).
    """
    in_range("full_rate_m", full_rate_m, above=0)
    in_range("exponent", exponent, least=1, most=8)
    in_range("least", least, above=0, most=1)
    in_range("every_s", every_s, above=0)
    if len(way) < 2 or any(b[0] <= a[0] for a, b in pairwise(way)):
        raise InvalidRequest(
            "the way of a device needs two points at least, each later than the one before",
            hint="give (seconds, east, north) in order of time",
            param="way",
        )
    changes: list[LinkChange] = []
    factors: dict[str, float] = {}
    count = math.floor((way[-1][0] - way[0][0]) / every_s + 1e-9)
    for step in range(count + 1):
        at_s = way[0][0] + step * every_s
        east, north = _place(way, at_s)
        for station, (x, y) in stations.items():
            share = _share(math.hypot(east - x, north - y) / full_rate_m, exponent, least)
            if share != factors.get(station):
                factors[station] = share
                changes.append(LinkChange(at_s=at_s, source=device, target=station, factor=share))
    return changes


def _place(way: Sequence[tuple[float, float, float]], at_s: float) -> Place:
    for (before_s, x0, y0), (after_s, x1, y1) in pairwise(way):
        if at_s <= after_s:
            part = (at_s - before_s) / (after_s - before_s)
            return x0 + part * (x1 - x0), y0 + part * (y1 - y0)
    return way[-1][1], way[-1][2]


_SIGNAL = 100.0
"""Over noise, at the distance of full rate: 20 dB."""


def _share(distance: float, exponent: float, least: float) -> float:
    if distance <= 1:
        return 1.0
    return max(least, math.log2(1 + _SIGNAL / distance**exponent) / math.log2(1 + _SIGNAL))
