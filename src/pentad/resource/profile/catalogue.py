"""The catalogue: devices as their makers and papers describe them, each number with who says it.

Files are JSON lists in `published/`, one for each class of devices. An entry is a DeviceProfile whose
`sources` name, per field, the data sheet or paper, or mark what is assumed. Rates are peaks, not what
programs reach.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
from dataclasses import replace

import msgspec

from pentad.errors import InvalidRequest, UnknownName
from pentad.execution.device import DeviceProfile, PowerMode
from pentad.resource.profile.files import load

_MODE = ":mode="


@functools.cache
def published() -> tuple[DeviceProfile, ...]:
    """Every device of the catalogue, class by class."""
    folder = importlib.resources.files(__package__) / "published"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda f: f.name)
    found: list[DeviceProfile] = []
    for file in files:
        found += msgspec.json.decode(file.read_bytes(), type=tuple[DeviceProfile, ...])
    return tuple(found)


def find(name: str) -> DeviceProfile:
    """A device by name: of the catalogue, or `local` for this machine's own profile.

    `NAME:mode=MODE` is the device in one of its power modes.

    Raises:
        UnknownName: no such device or mode; names the nearest or lists them.
        InvalidRequest: `local`, and this machine has not been measured; a mode of a device that has none.
    """
    bare, _, mode = name.partition(_MODE)
    if bare == "local":
        return in_mode(load(), mode) if mode else load()
    devices = {device.name: device for device in published()}
    if bare not in devices:
        alike = difflib.get_close_matches(bare, ("local", *devices), n=1)
        meant = f"did you mean {alike[0]!r}? " if alike else ""
        raise UnknownName(
            f"unknown device {bare!r}", hint=f"{meant}all are shown by pentad profile --list", param="device"
        )
    return in_mode(devices[bare], mode) if mode else devices[bare]


def in_mode(device: DeviceProfile, mode: str) -> DeviceProfile:
    """The device in one of its power modes: its rates scaled, its power that of the mode.

    Raises:
        InvalidRequest: it has no modes.
        UnknownName: it has others.
    """
    if not device.modes:
        raise InvalidRequest(f"device {device.name!r} has no power modes", hint="leave :mode= out")
    found = {one.name: one for one in device.modes}
    if mode not in found:
        raise UnknownName(
            f"device {device.name!r} has no power mode {mode!r}",
            hint=f"modes: {', '.join(found)}",
            param="mode",
        )
    return _scaled(device, found[mode])


def _scaled(device: DeviceProfile, mode: PowerMode) -> DeviceProfile:
    memory = tuple(
        replace(tier, read_bytes_per_s=tier.read_bytes_per_s * mode.bandwidth_fraction)
        for tier in device.memory
    )
    return replace(
        device,
        name=f"{device.name}{_MODE}{mode.name}",
        memory=memory,
        flops_per_s={name: rate * mode.compute_fraction for name, rate in device.flops_per_s.items()},
        power_w=mode.power_w,
        modes=(),
    )
