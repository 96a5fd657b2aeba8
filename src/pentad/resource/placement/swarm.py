"""A swarm of volunteers: who hosts which layers, who moves, and along which chains requests go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

_LEAST = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A volunteer with the layers that it hosts."""

    name: str
    first: int
    count: int
    """Layers that it has room for."""
    rate: float
    """Tokens per second through all of them."""

    @property
    def end(self) -> int:
        """Behind the last."""
        return self.first + self.count


def rates_of(hosts: Sequence[Host], layers: int) -> list[float]:
    """Tokens per second that pass each layer."""
    found = [0.0] * layers
    for host in hosts:
        for layer in range(host.first, host.end):
            found[layer] += host.rate
    return found


def thinnest(rates: Sequence[float], count: int) -> int:
    """The first of so many layers in a row that have least: by their lowest rate, then the next one ..."""
    starts = range(len(rates) - count + 1)
    return min(starts, key=lambda start: (sorted(rates[start : start + count]), start))


def joined_swarm(newcomers: Sequence[tuple[str, int, float]], layers: int) -> list[Host]:
    """Volunteers (name, layers, rate) that join one after the other, each where the swarm is thinnest."""
    hosts: list[Host] = []
    for name, count, rate in newcomers:
        first = thinnest(rates_of(hosts, layers), count)
        hosts.append(Host(name=name, first=first, count=count, rate=rate))
    return hosts


def next_move(hosts: Sequence[Host], layers: int, *, gain: float) -> Host | None:
    """The host that should move, with its new layers; None where no move gains enough.

    One moves if the swarm as a whole, which is as fast as its thinnest layer, gets faster by this share.
    Where layers are hosted by nobody, one moves so that more are hosted.
    """
    now = min(rates_of(hosts, layers))
    best: tuple[tuple[float, float], Host] | None = None
    for host in hosts:
        others = [other for other in hosts if other is not host]
        rates = rates_of(others, layers)
        moved = replace(host, first=thinnest(rates, host.count))
        if moved.first == host.first:
            continue
        after = rates_of([*others, moved], layers)
        covered = sum(rate > 0 for rate in after) - sum(rate > 0 for rate in rates_of(hosts, layers))
        value = min(after), float(covered)
        better = value[0] > now * (1 + gain) + _LEAST if now > 0 else value[0] > 0 or covered > 0
        if better and (best is None or value > best[0]):
            best = value, moved
    return None if best is None else best[1]


def settled(hosts: Sequence[Host], layers: int, *, gain: float) -> list[Host]:
    """The swarm once nobody moves any more."""
    found = list(hosts)
    for _ in range(len(found) * layers):
        moved = next_move(found, layers, gain=gain)
        if moved is None:
            break
        found = [moved if host.name == moved.name else host for host in found]
    return found


Part = tuple[str, int, int]


def chains(hosts: Sequence[Host], layers: int) -> list[tuple[tuple[Part, ...], float]]:
    """Ways through all layers with the tokens per second of each, widest first.

    A part of a host's layers takes that part of its time.
    """
    left = {host.name: host.rate for host in hosts}
    found: list[tuple[tuple[Part, ...], float]] = []
    while True:
        best: dict[int, tuple[float, tuple[Part, ...]]] = {0: (float("inf"), ())}
        for at in range(layers):
            if at not in best:
                continue
            for host in hosts:
                if host.first <= at < host.end:
                    width = min(best[at][0], left[host.name] * host.count / (host.end - at))
                    if host.end not in best or width > best[host.end][0]:
                        best[host.end] = width, (*best[at][1], (host.name, at, host.end))
        width, path = best.get(layers, (0.0, ()))
        if width <= _LEAST:
            return sorted(found, key=lambda entry: -entry[1])
        for name, first, end in path:
            own = next(host for host in hosts if host.name == name)
            left[name] -= width * (end - first) / own.count
        found.append((path, width))
