"""Who looks after chains: volunteers that move to thin layers, and a ring that shares its layers out anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pentad.ranges import in_range
from pentad.resource.placement.lingualinked import RingMetrics, ring_layers
from pentad.resource.placement.swarm import Host, next_move
from pentad.resource.simulator.chains import ChainWorld


@dataclass(slots=True, kw_only=True)
class SwarmControl:
    """At each look one volunteer may move to the thinnest layers, as in `swarm.next_move`.

    Source: Petals (Borzunov et al., 2023, section 3.2).
    """

    gain: float = 0.2
    """Share by which the swarm must get faster."""

    def __post_init__(self) -> None:
        in_range("gain", self.gain, least=0)

    def __call__(self, world: ChainWorld) -> None:
        hosts = [
            Host(
                name=server.name,
                first=server.layers[0],
                count=server.layers[1] - server.layers[0],
                rate=1 / world.token_s(server, server.layers[1] - server.layers[0]),
            )
            for server in world.servers.values()
            if server.died_s > world.now_s
        ]
        moved = next_move(hosts, world.problem.spec.layers, gain=self.gain) if hosts else None
        if moved is not None:
            world.move(moved.name, (moved.first, moved.end))


@dataclass(slots=True, kw_only=True)
class RingControl:
    """Compares what each device of a ring takes with what it took when layers were shared out last.

    Where the slowest would be faster by the share `gain` with other layers, these are moved between
    neighbours with their keys and values; sessions wait for it, and go on.

    Source: LinguaLinked (Zhao et al., 2023, section 3.4: run-time load balancing).
    """

    metrics: RingMetrics
    line: Sequence[str]
    gain: float = 0.1
    decided_s: list[float] = field(default_factory=list)
    """When layers were moved."""

    def __post_init__(self) -> None:
        in_range("gain", self.gain, least=0)

    def __call__(self, world: ChainWorld) -> None:
        factors = {place: world.servers[name].factor for place, name in enumerate(self.line)}
        seen = self.metrics.slowed(factors)
        now = tuple(world.servers[name].layers[1] - world.servers[name].layers[0] for name in self.line)
        wanted = ring_layers(seen)
        if wanted is None or slowest_s(seen, wanted) * (1 + self.gain) > slowest_s(seen, now):
            return
        self.decided_s.append(world.now_s)
        hops, first = [], 0
        for place, (name, count) in enumerate(zip(self.line, wanted, strict=True)):
            layers = first, first + count
            if count and layers != world.servers[name].layers:
                neighbour = self.line[place - 1] if place else self.line[-1]
                world.move(name, layers, source=neighbour, keeps=True)
            elif not count:
                world.servers[name].layers = layers
            if count:
                hops.append((name, layers))
            first += count
        world.relay(hops)


def slowest_s(metrics: RingMetrics, layers: Sequence[int]) -> float:
    """The time of the slowest device with so many layers each, sending included."""
    each = zip(metrics.layer_s, metrics.send_s, layers, strict=True)
    return max(layer_s * count + send_s for layer_s, send_s, count in each if count)
