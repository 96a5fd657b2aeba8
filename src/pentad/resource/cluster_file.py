"""Cluster files: devices, links, prices and power in YAML, for plan and simulate.

link: {bytes_per_s: 125e6, latency_s: 1e-4}       # between any two devices not named below
devices:
  - {name: gpu, profile: h100-sxm, count: 2, price_per_hour: 3.5}
  - {name: edge, profile: ./edge.json, power_w: 15}
  - {name: here, profile: local}
links:
  - {between: [gpu-1, gpu-2], bytes_per_s: 450e9, latency_s: 2e-6}
  - {source: edge, target: gpu-1, bytes_per_s: 12.5e6, latency_s: 0.02}
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from pentad.errors import InvalidRequest
from pentad.execution.device import Cluster, DeviceProfile, Link
from pentad.ranges import in_range
from pentad.resource.profile import find, load
from pentad.yaml_text import read_yaml

T = TypeVar("T")
MAX_BYTES = 1 << 20
MAX_DEVICES = 4096
_KEYS = ("link", "devices", "links")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Speed:
    """What every link has."""

    bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeviceEntry:
    """One device, or `count` of a kind, which are then called name-1, name-2 ..."""

    profile: str
    name: str = ""
    count: int = 1
    price_per_hour: float | None = None
    power_w: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _LinkEntry:
    """Two devices, and the speed of both ways between them or of one."""

    bytes_per_s: float
    latency_s: float
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
    default = _entry(data["link"], _Speed, "link") if data.get("link") is not None else None
    return Cluster(devices=devices, links=tuple(_links(data.get("links") or [], devices, default)))


def _devices(entries: Any, file: pathlib.Path) -> Iterator[DeviceProfile]:
    total = 0
    for i, value in enumerate(_list(entries, "devices")):
        where = f"devices[{i}]"
        entry = _entry(value, _DeviceEntry, where)
        in_range(f"{where}.count", entry.count, least=1, most=MAX_DEVICES)
        in_range(f"{where}.price_per_hour", entry.price_per_hour, least=0)
        in_range(f"{where}.power_w", entry.power_w, above=0)
        total += entry.count
        in_range("the number of devices", total, most=MAX_DEVICES)
        profile = _profile(entry.profile, file)
        price = profile.price_per_hour if entry.price_per_hour is None else entry.price_per_hour
        power = profile.power_w if entry.power_w is None else entry.power_w
        name = entry.name or profile.name
        for n in range(1, entry.count + 1):
            own = name if entry.count == 1 else f"{name}-{n}"
            yield dataclasses.replace(profile, name=own, price_per_hour=price, power_w=power)


def _profile(text: str, file: pathlib.Path) -> DeviceProfile:
    if text.endswith(".json"):
        return load(file.parent / pathlib.Path(text).expanduser())
    return find(text)


def _links(entries: Any, devices: tuple[DeviceProfile, ...], default: _Speed | None) -> Iterator[Link]:
    names = {device.name for device in devices}
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
            found[source, target] = Link(
                source=source, target=target, bytes_per_s=entry.bytes_per_s, latency_s=entry.latency_s
            )
    if default is not None:
        for source, target in itertools.permutations(sorted(names), 2):
            if (source, target) not in found:
                found[source, target] = Link(
                    source=source,
                    target=target,
                    bytes_per_s=default.bytes_per_s,
                    latency_s=default.latency_s,
                )
    yield from found.values()


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
