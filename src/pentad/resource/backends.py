"""Which backend runs on a device, by the programming interfaces that reach it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pentad.execution.device import DeviceProfile
from pentad.types import Decision

BACKEND_APIS: Mapping[str, tuple[str, ...]] = {
    "engine": ("cuda", "rocm"),
    "llamacpp": ("cuda", "rocm", "metal", "vulkan", "opencl", "cann"),
}
"""Backends and their interfaces to accelerators: ours by PyTorch, whose ROCm builds serve as well, and
llama.cpp's own. Both run on processors."""
PREFERENCE = ("cuda", "rocm", "metal", "cann", "vulkan", "opencl")
"""From the interface made for one vendor's devices to the ones that are made for all."""
CPU = "cpu"
REMOTE = "openai"
"""What serves a device that neither backend reaches: an endpoint of its maker's own server."""
SUBJECT = "backend"
_COLLECTIVES = {"cuda": "NCCL", "rocm": "RCCL", "cann": "HCCL", "xla": "XLA", "neuron": "Neuron"}


def backend_for(device: DeviceProfile, backends: Sequence[str] = ("engine", "llamacpp")) -> Decision:
    """The backend for a device and the interface through which it computes there.

    The first interface of PREFERENCE that the device has and a backend knows; of backends that know it the
    first named. Devices without any interface are processors.
    """
    scored = tuple(
        (f"{backend}:{api}", float(len(PREFERENCE) - place))
        for place, api in enumerate(PREFERENCE)
        for backend in backends
        if api in device.apis and api in BACKEND_APIS.get(backend, ())
    )
    if scored:
        chosen, constraint = scored[0][0], None
    elif device.apis:
        chosen = REMOTE
        constraint = f"no backend here reaches {', '.join(sorted(device.apis))}: serve it by an endpoint"
    else:
        chosen, constraint = f"{backends[0]}:{CPU}", None
    return Decision(
        layer="resource",
        policy="apis",
        subject=SUBJECT,
        chosen=f"{chosen} on {device.name}",
        candidates=scored,
        constraint=constraint,
    )


def collectives(device: DeviceProfile) -> frozenset[str]:
    """Libraries that exchange partial sums between such devices; none for processors, which take any."""
    return frozenset(library for api, library in _COLLECTIVES.items() if api in device.apis)


def share_layers(devices: Collection[DeviceProfile]) -> bool:
    """Whether devices can share layers: accelerators need one collective library that all of them have."""
    known = [found for found in map(collectives, devices) if found]
    return not known or bool(frozenset.intersection(*known))
