"""Links of a world: transfers wait for each other, and what a link carries may change without a word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pentad.execution.device import Cluster, Link
from pentad.ranges import in_range

if TYPE_CHECKING:
    from pentad.resource.simulator.world import Event, World


@dataclass(slots=True)
class Links:
    """The links of a cluster, each with the transfers that are on it: first come, first served."""

    cluster: Cluster
    _free_s: dict[tuple[str, str], float] = field(default_factory=dict)
    _factors: dict[tuple[str, str], float] = field(default_factory=dict)

    def link(self, source: str, target: str) -> Link | None:
        """As the cluster file describes it, whatever has become of it."""
        return self.cluster.link(source, target)

    def wait_s(self, source: str, target: str, now_s: float) -> float:
        """Seconds until what is being sent on it has been."""
        return max(0.0, self._free_s.get((source, target), 0.0) - now_s)

    def rate(self, link: Link) -> float:
        """Bytes per second that it carries now."""
        return link.bytes_per_s * self._factors.get((link.source, link.target), 1.0)

    def send(self, link: Link, size_bytes: float, now_s: float) -> float:
        """Puts a transfer on a link; returns the seconds until its last byte arrives."""
        key = link.source, link.target
        end_s = max(now_s, self._free_s.get(key, 0.0)) + size_bytes / self.rate(link)
        self._free_s[key] = end_s
        return end_s - now_s + link.latency_s

    def change(self, source: str, target: str, factor: float) -> None:
        """From now on the link carries this share of what is said of it; what is under way stays as it is."""
        self._factors[source, target] = factor


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkChange:
    """A link becomes slower or faster, both ways, and nobody is told."""

    priority: ClassVar[int] = 0
    at_s: float
    source: str
    target: str
    factor: float
    """Of the bytes per second that the cluster gives it, above 0."""

    def __post_init__(self) -> None:
        in_range("at_s", self.at_s, least=0)
        in_range("factor", self.factor, above=0)

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        if world.placing is not None:
            world.placing.links.change(self.source, self.target, self.factor)
            world.placing.links.change(self.target, self.source, self.factor)
        return ()
