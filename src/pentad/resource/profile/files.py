"""Profiles in files: JSON, checked when read."""

from __future__ import annotations

import math
import os
import pathlib
import tempfile

import msgspec

from pentad.errors import InvalidRequest
from pentad.execution.device import DeviceProfile

MAX_BYTES = 16 << 20


def default_path() -> pathlib.Path:
    """Where this machine's own profile lies: under $PENTAD_HOME, else ~/.cache/pentad."""
    return pathlib.Path(os.environ.get("PENTAD_HOME") or "~/.cache/pentad").expanduser() / "profile.json"


def save(profile: DeviceProfile, path: str | pathlib.Path | None = None) -> pathlib.Path:
    """Writes a profile, whole or not at all; returns where. None means the default path.

    Raises:
        InvalidRequest: the path cannot be written.
    """
    target = default_path() if path is None else pathlib.Path(path)
    data = msgspec.json.format(msgspec.json.encode(profile, order="sorted"), indent=1)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=target.name, delete=False) as file:
            file.write(data + b"\n")
        pathlib.Path(file.name).replace(target)
    except OSError as error:
        raise InvalidRequest(
            f"cannot write profile {str(target)!r}: {error.strerror}", hint="choose another path"
        ) from error
    return target


def load(path: str | pathlib.Path | None = None) -> DeviceProfile:
    """Reads a profile. None means the default path.

    Raises:
        InvalidRequest: there is none, or it is not one; names the field at fault.
    """
    source = default_path() if path is None else pathlib.Path(path)
    try:
        if source.stat().st_size > MAX_BYTES:
            raise InvalidRequest(f"{str(source)!r} is no device profile: larger than {MAX_BYTES} bytes")
        data = source.read_bytes()
    except FileNotFoundError as error:
        raise InvalidRequest(
            f"there is no device profile at {str(source)!r}",
            hint="run pentad profile, or name a device of pentad profile --list",
        ) from error
    except OSError as error:
        raise InvalidRequest(f"cannot read profile {str(source)!r}: {error.strerror}") from error
    try:
        profile = msgspec.json.decode(data, type=DeviceProfile)
    except msgspec.DecodeError as error:  # its child ValidationError names the field
        raise InvalidRequest(
            f"{str(source)!r} is no device profile: {error}", hint="run pentad profile again"
        ) from error
    check(profile)
    return profile


def check(profile: DeviceProfile) -> None:
    """Raises InvalidRequest for rates and sizes that no device has."""
    for tier in profile.memory:
        if not (_rate(tier.capacity_bytes) and _rate(tier.read_bytes_per_s)):
            _refuse(profile, f"memory tier {tier.name!r} has no size or no rate")
    if not profile.memory:
        _refuse(profile, "it has no memory")
    if not all(map(_rate, profile.flops_per_s.values())):
        _refuse(profile, "a compute rate is not above 0")
    for point in profile.gemm_points:
        if not all(_rate(point.get(name, 0)) for name in ("m", "n", "k", "bits", "seconds")):
            _refuse(profile, f"the matrix point {dict(point)} lacks m, n, k, bits or seconds")
    sizes = [size for size, _ in profile.bandwidth_by_working_set]
    if sizes != sorted(set(sizes)) or not all(_rate(rate) for _, rate in profile.bandwidth_by_working_set):
        _refuse(profile, "bandwidth_by_working_set does not ascend or has a rate that is not above 0")
    if not all(map(_rate, profile.ports.values())):
        _refuse(profile, "a port has a rate that is not above 0")
    if not 0 < profile.sustained_fraction <= 1:
        _refuse(profile, "sustained_fraction is not above 0 and at most 1")
    if not 0 <= profile.reserved_bytes < max(tier.capacity_bytes for tier in profile.memory):
        _refuse(profile, "reserved_bytes leaves no memory")
    if not all(
        value is None or _rate(value) for value in (profile.power_w, profile.idle_w, profile.battery_j)
    ):
        _refuse(profile, "power_w, idle_w or battery_j is not above 0")
    if not all(0 <= value < math.inf for value in profile.extra.values()):
        _refuse(profile, "a value in extra is below 0")


def _rate(value: float) -> bool:
    return 0 < value < math.inf


def _refuse(profile: DeviceProfile, why: str) -> None:
    raise InvalidRequest(
        f"device profile {profile.name!r} is not usable: {why}", hint="run pentad profile again"
    )
