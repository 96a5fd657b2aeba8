"""DeviceProfile and Cluster: what the machines can do, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pentad.ranges import in_range

Source = Literal["measured", "published", "assumed"]
SOURCES: tuple[Source, ...] = ("measured", "published", "assumed")
"""From the strongest evidence to the weakest."""
Kind = Literal[
    "cpu",
    "gpu",
    "tpu",
    "jetson",
    "ascend",
    "fpga",
    "asic",
    "imc",
    "phone",
    "pc",
    "glasses",
    "headset",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTier:
    """One kind of memory of a device, nearest first in a profile."""

    name: str
    capacity_bytes: int
    read_bytes_per_s: float
    write_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """On whose word a number of a profile stands."""

    mark: Source
    by: str
    """Data sheet, paper and table; of an assumption, what it rests on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """One of the settings between which a device trades speed for power."""

    name: str
    power_w: float
    compute_fraction: float
    """Of the rates of its fastest mode."""
    bandwidth_fraction: float = 1.0

    def __post_init__(self) -> None:
        in_range("power_w", self.power_w, above=0)
        in_range("compute_fraction", self.compute_fraction, above=0, most=1)
        in_range("bandwidth_fraction", self.bandwidth_fraction, above=0, most=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """Rates, sizes and limits of one device.

    Rates that were not obtained are absent rather than guessed.
    """

    name: str
    kind: Kind
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
    """What it computes, in the words of `resource.profile.operators`; empty: whatever a model needs."""
    one_segment: bool = False
    """Whether its compiler maps operators only up to the first that it lacks (Coral's Edge TPU)."""
    families: frozenset[str] = frozenset()
    """The only model families that it runs; empty: any."""
    vendor: str | None = None
    apis: frozenset[str] = frozenset()
    """Interfaces through which programs reach it: cuda, rocm, metal, vulkan, opencl ..."""
    ports: Mapping[str, float] = field(default_factory=dict)
    """Kind of link that it has to the bytes per second each way: nvlink, hccs, pcie, wifi ..."""
    power_w: float | None = None
    """Rated power."""
    idle_w: float | None = None
    modes: tuple[PowerMode, ...] = ()
    """The rates above are those of the fastest."""
    battery_j: float | None = None
    """A full battery; None: it has none."""
    sustained_fraction: float = 1.0
    """Of the compute rates, once it is warm."""
    shared_memory: bool = False
    """Whether processor and accelerator share one memory."""
    reserved_bytes: int = 0
    """Of the main memory, what system and other programs take."""
    price_per_hour: float | None = None
    host: str = ""
    """The machine that it is a part of, with others; empty: it is one by itself, and always runs."""
    spot: bool = False
    """Whether its owner may take it back."""
    remote: bool = False
    """Whether it is somebody else's, where data with the label `local` may not go."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """Further measured scalars, named with their unit, e.g. `step_overhead_s`."""
    sources: Mapping[str, Origin] = field(default_factory=dict)
    """Field, or field with a dot and a key, to who says it; `*` says what no other entry does."""

    def origin(self, name: str) -> Origin | None:
        """Who says a field, e.g. `power_w`, or a part, e.g. `extra.dsp_count`; None: nobody is named."""
        for key in (name, name.partition(".")[0], "*"):
            if key in self.sources:
                return self.sources[key]
        return None

    @property
    def weakest_source(self) -> Source:
        """The weakest evidence that its rates and sizes rest on."""
        named = [origin.mark for key, origin in self.sources.items() if key.startswith(_RATES)]
        return max((self.source, *named), key=SOURCES.index)


_RATES = ("*", "memory", "flops_per_s", "modes", "sustained_fraction")


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
class LinkSpeed:
    """What a link can carry, whatever it joins."""

    bytes_per_s: float
    latency_s: float

    def __post_init__(self) -> None:
        in_range("link_bytes_per_s", self.bytes_per_s, above=0)
        in_range("link_latency_s", self.latency_s, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMachine:
    """A machine with several devices that can be rented and given back."""

    name: str
    price_per_hour: float = 0.0
    """While anything of it is up, beside the prices of its devices."""
    start_s: float = 0.0
    """Until anything can be started on it."""

    def __post_init__(self) -> None:
        in_range("host_price_per_hour", self.price_per_hour, least=0)
        in_range("host_start_s", self.start_s, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Devices and the links between them."""

    devices: tuple[DeviceProfile, ...]
    links: tuple[Link, ...] = ()
    default_link: LinkSpeed | None = None
    """Between any two devices that no link joins; None: these are not connected."""
    hosts: tuple[HostMachine, ...] = ()
    """Machines that can be rented; a device's host that is not among them always runs."""
    _links: Mapping[tuple[str, str], Link] = field(init=False, repr=False, compare=False)
    _devices: Mapping[str, DeviceProfile] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Of two links between the same devices, and of two devices of one name, the first counts.
        found = {(link.source, link.target): link for link in reversed(self.links)}
        object.__setattr__(self, "_links", found)
        object.__setattr__(self, "_devices", {device.name: device for device in reversed(self.devices)})

    def link(self, source: str, target: str) -> Link | None:
        """The link from one device to another, where there is one."""
        found = self._links.get((source, target))
        if found is not None or self.default_link is None or source == target:
            return found
        speed = self.default_link
        return Link(source=source, target=target, bytes_per_s=speed.bytes_per_s, latency_s=speed.latency_s)

    def device(self, name: str) -> DeviceProfile:
        """The device of that name. Raises KeyError."""
        return self._devices[name]
