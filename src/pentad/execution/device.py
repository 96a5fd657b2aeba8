"""DeviceProfile and Cluster: what the machines can do, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pentad.ranges import in_range

Source = Literal["measured", "published", "assumed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTier:
    """One kind of memory of a device, nearest first in a profile."""

    name: str
    capacity_bytes: int
    read_bytes_per_s: float
    write_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """Rates, sizes and limits of one device.

    Rates that were not obtained are absent rather than guessed.
    """

    name: str
    kind: Literal["cpu", "gpu", "fpga", "asic", "imc", "phone", "jetson", "tpu", "ascend"]
    source: Source
    memory: tuple[MemoryTier, ...]
    """Caches first, then main memory, then disk."""
    flops_per_s: Mapping[str, float] = field(default_factory=dict)
    """Precision (`f32`, `bf16`, `int8` ...) to the sustained rate of a large matrix product."""
    bandwidth_by_working_set: tuple[tuple[int, float], ...] = ()
    """(working set in bytes, read bytes per second), ascending."""
    gemm_points: tuple[Mapping[str, float], ...] = ()
    """Measured matrix products: `m`, `n`, `k`, `bits`, `seconds`, and `among_bytes` of such weights."""
    kernels: str | None = None
    """Whose products and steps were measured: `torch`, or an instruction set of the native kernels."""
    cores: int | None = None
    isa: tuple[str, ...] = ()
    operators: frozenset[str] = frozenset()
    power_w: float | None = None
    price_per_hour: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    """Further measured scalars, named with their unit, e.g. `step_overhead_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A one-way connection between two devices."""

    source: str
    target: str
    bytes_per_s: float
    latency_s: float

    def __post_init__(self) -> None:
        in_range("link_bytes_per_s", self.bytes_per_s, above=0)
        in_range("link_latency_s", self.latency_s, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Devices and the links between them."""

    devices: tuple[DeviceProfile, ...]
    links: tuple[Link, ...] = ()
    _links: Mapping[tuple[str, str], Link] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Of two links between the same devices the first counts.
        found = {(link.source, link.target): link for link in reversed(self.links)}
        object.__setattr__(self, "_links", found)

    def link(self, source: str, target: str) -> Link | None:
        """The link from one device to another, where there is one."""
        return self._links.get((source, target))

    def device(self, name: str) -> DeviceProfile:
        """The device of that name. Raises KeyError."""
        for device in self.devices:
            if device.name == name:
                return device
        raise KeyError(name)
