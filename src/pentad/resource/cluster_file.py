"""Cluster files: devices, links, prices and power in YAML, for plan and simulate.

link: {bytes_per_s: 125e6, latency_s: 1e-4}       # between any two devices not named below
devices:
  - {name: gpu, profile: h100-sxm, count: 2, price_per_hour: 3.5}
  - {name: edge, profile: ./edge.json, power_w: 15, cold_start_s: 8}
  - {name: here, profile: local}
links:
  - {between: [gpu-1, gpu-2], over: nvlink, latency_s: 2e-6}
  - {source: edge, target: gpu-1, bytes_per_s: 12.5e6, latency_s: 0.02}

A device may be `remote` (somebody else's), `spot` (may be taken back) and part of a `host` that is rented:
hosts:
  - {name: node-a, price_per_hour: 1.0, start_s: 40}
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from pentad.errors import InvalidRequest
from pentad.execution.device import Cluster, DeviceProfile, HostMachine, Link, LinkSpeed
from pentad.ranges import in_range
from pentad.resource.profile import find, load
from pentad.yaml_text import read_yaml

T = TypeVar("T")
MAX_BYTES = 1 << 20
MAX_DEVICES = 4096
_KEYS = ("link", "devices", "links", "hosts")


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeviceEntry:
    """One device, or `count` of a kind, which are then called name-1, name-2 ..."""

    profile: str
    name: str = ""
    count: int = 1
    price_per_hour: float | None = None
    power_w: float | None = None
    idle_w: float | None = None
    battery_j: float | None = None
    """What its battery has now."""
    cold_start_s: float | None = None
    host: str = ""
    spot: bool = False
    remote: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _LinkEntry:
    """Two devices, and the speed of both ways between them or of one."""

    latency_s: float
    bytes_per_s: float | None = None
    """Absent: what the slower of the two ports of the kind `over` carries."""
    over: str | None = None
    """Kind of link, which both devices must have a port for: nvlink, hccs, pcie ..."""
    between: tuple[str, str] | None = None
    source: str | None = None
    target: str | None = None


def read_cluster(path: str | pathlib.Path) -> Cluster:
    """The cluster that a file describes.

    Profiles are names of the catalogue, `local`, or JSON files, relative to the cluster file. Without
    `link`, devices that no entry of `links` joins are not connected.

    Raises:
        InvalidRequest, UnknownName: it cannot be read, or describes none; names entry and field.
    """
    file = pathlib.Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidRequest(f"cluster file {str(file)!r} has more than {MAX_BYTES >> 10} KiB")
        data = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequest(
            f"cluster file {str(file)!r} cannot be read: {reason}", hint="set --cluster to a YAML file"
        ) from None
    if not isinstance(data, dict) or not data.get("devices"):
        raise InvalidRequest(
            f"cluster file {str(file)!r} lists no devices",
            hint="write devices: [{name: NAME, profile: PROFILE}]",
            param="devices",
        )
    if unknown := [key for key in data if key not in _KEYS]:
        raise InvalidRequest(
            f"cluster file {str(file)!r} has the unknown key {unknown[0]!r}",
            hint=f"keys are {', '.join(_KEYS)}",
        )
    devices = tuple(_devices(data["devices"], file))
    if len({device.name for device in devices}) < len(devices):
        names = [device.name for device in devices]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"two devices are called {twice!r}", hint="give each its own name", param="name")
    default = _entry(data["link"], LinkSpeed, "link") if data.get("link") is not None else None
    links = tuple(_links(data.get("links") or [], devices))
    hosts = tuple(
        _entry(value, HostMachine, f"hosts[{i}]")
        for i, value in enumerate(_list(data.get("hosts") or [], "hosts"))
    )
    _check_hosts(hosts, devices)
    return Cluster(devices=devices, links=links, default_link=default, hosts=hosts)


def _check_hosts(hosts: Sequence[HostMachine], devices: Sequence[DeviceProfile]) -> None:
    """Raises InvalidRequest for a host that is described twice, or that no device is a part of."""
    names = [host.name for host in hosts]
    used = {device.host for device in devices}
    for name in names:
        if names.count(name) > 1 or name not in used:
            trouble = "twice" if names.count(name) > 1 else "but no device has it"
            raise InvalidRequest(
                f"hosts has {name!r} {trouble}",
                hint=f"hosts of devices are: {', '.join(sorted(used - {''})) or 'none'}",
                param="hosts",
            )


def _devices(entries: Any, file: pathlib.Path) -> Iterator[DeviceProfile]:
    total = 0
    for i, value in enumerate(_list(entries, "devices")):
        where = f"devices[{i}]"
        entry = _entry(value, _DeviceEntry, where)
        in_range(f"{where}.count", entry.count, least=1, most=MAX_DEVICES)
        in_range(f"{where}.price_per_hour", entry.price_per_hour, least=0)
        in_range(f"{where}.power_w", entry.power_w, above=0)
        in_range(f"{where}.idle_w", entry.idle_w, above=0)
        in_range(f"{where}.battery_j", entry.battery_j, above=0)
        in_range(f"{where}.cold_start_s", entry.cold_start_s, least=0)
        total += entry.count
        in_range("the number of devices", total, most=MAX_DEVICES)
        profile = _profile(entry.profile, file)
        price = profile.price_per_hour if entry.price_per_hour is None else entry.price_per_hour
        power = profile.power_w if entry.power_w is None else entry.power_w
        idle = profile.idle_w if entry.idle_w is None else entry.idle_w
        battery = profile.battery_j if entry.battery_j is None else entry.battery_j
        cold = {} if entry.cold_start_s is None else {"cold_start_s": entry.cold_start_s}
        name = entry.name or profile.name
        for n in range(1, entry.count + 1):
            own = name if entry.count == 1 else f"{name}-{n}"
            yield dataclasses.replace(
                profile,
                name=own,
                price_per_hour=price,
                power_w=power,
                idle_w=idle,
                battery_j=battery,
                extra={**profile.extra, **cold},
                host=entry.host,
                spot=entry.spot,
                remote=entry.remote,
            )


def _profile(text: str, file: pathlib.Path) -> DeviceProfile:
    if text.endswith(".json"):
        return load(file.parent / pathlib.Path(text).expanduser())
    return find(text)


def _links(entries: Any, devices: tuple[DeviceProfile, ...]) -> Iterator[Link]:
    names = {device.name: device for device in devices}
    found: dict[tuple[str, str], Link] = {}
    for i, value in enumerate(_list(entries, "links")):
        where = f"links[{i}]"
        entry = _entry(value, _LinkEntry, where)
        for source, target in _ways(entry, where):
            for name in (source, target):
                if name not in names:
                    raise InvalidRequest(
                        f"{where} names {name!r}, which is no device of the file",
                        hint=f"devices are {', '.join(sorted(names)[:20])}",
                        param="links",
                    )
            if (source, target) in found:
                raise InvalidRequest(f"{where} describes {source} to {target} again", param="links")
            rate = _rate(entry, names[source], names[target], where)
            found[source, target] = Link(
                source=source, target=target, bytes_per_s=rate, latency_s=entry.latency_s
            )
    yield from found.values()


def _rate(entry: _LinkEntry, source: DeviceProfile, target: DeviceProfile, where: str) -> float:
    """Bytes per second of a link; of a kind of link no more than both ports carry."""
    if entry.over is None:
        if entry.bytes_per_s is None:
            raise InvalidRequest(
                f"{where} has no speed", hint="write bytes_per_s, or over: and a kind of link", param=where
            )
        return entry.bytes_per_s
    for device in (source, target):
        if entry.over not in device.ports:
            known = ", ".join(sorted(device.ports)) or "no ports"
            raise InvalidRequest(
                f"{where} goes over {entry.over!r}, which {device.name!r} does not have (it has {known})",
                hint="name a kind that both devices have, or write bytes_per_s alone",
                param=where,
            )
    ports = min(source.ports[entry.over], target.ports[entry.over])
    return ports if entry.bytes_per_s is None else min(ports, entry.bytes_per_s)


def _ways(entry: _LinkEntry, where: str) -> list[tuple[str, str]]:
    if entry.between is not None and entry.source is None and entry.target is None:
        one, other = entry.between
        return [(one, other), (other, one)]
    if entry.between is None and entry.source is not None and entry.target is not None:
        return [(entry.source, entry.target)]
    raise InvalidRequest(
        f"{where} must name two devices",
        hint="write between: [A, B], or source: A and target: B",
        param=where,
    )


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidRequest(f"{where} is a {type(value).__name__}, not a list", param=where)
    return value


def _entry(value: Any, kind: type[T], where: str) -> T:
    """An entry with known keys and values of their types. Numbers may be written as 125e6."""
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if isinstance(value, Mapping) and (unknown := [key for key in value if key not in known]):
        raise InvalidRequest(
            f"{where} has the unknown key {unknown[0]!r}", hint=f"keys are {', '.join(known)}", param=where
        )
    try:
        return msgspec.convert(value, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{where}: {error}", hint=f"keys are {', '.join(known)}", param=where) from None
