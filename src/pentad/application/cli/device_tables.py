"""How device profiles read: one row each, and on whose word their numbers stand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from pentad.application.cli.output import duration, note, print_json, print_table, size
from pentad.errors import InvalidRequest, UnknownName
from pentad.execution.device import DeviceProfile
from pentad.registry import near
from pentad.resource.matrices import main_memory

COLUMNS = ("kind", "device", "rates", "memory", "reads", "compute TFLOP/s", "watts", "APIs")
ORIGINS = ("number", "value", "mark", "source")
_SHOWN = ("f32", "bf16", "f16", "fp8", "int8", "fp4", "int4")
_NUMBERS = ("power_w", "idle_w", "battery_j", "sustained_fraction", "reserved_bytes", "cores")


def of_kind(devices: Sequence[DeviceProfile], kind: str | None) -> list[DeviceProfile]:
    """The devices, class by class; of one class where `kind` is given. Raises UnknownName."""
    kinds = sorted({device.kind for device in devices})
    if kind is not None and kind not in kinds:
        raise UnknownName(f"no device is of kind {kind!r}", hint=near(kind, kinds), param="kind")
    found = [device for device in devices if kind in (None, device.kind)]
    return sorted(found, key=lambda device: kinds.index(device.kind))


def row(device: DeviceProfile) -> tuple[object, ...]:
    """A device under COLUMNS."""
    memory = main_memory(device)
    rates = {name: rate for name, rate in device.flops_per_s.items() if name in _SHOWN}
    # Two names of 16 bits are usually one rate.
    if rates.get("bf16") == rates.get("f16"):
        rates.pop("f16", None)
    return (
        device.kind,
        device.name,
        device.weakest_source,
        size(memory.capacity_bytes),
        f"{memory.read_bytes_per_s / 1e9:.1f} GB/s",
        ", ".join(f"{name} {_tera(rate)}" for name, rate in rates.items()) or "-",
        None if device.power_w is None else f"{device.power_w:g}",
        " ".join(sorted(device.apis)) or "-",
    )


def origins(device: DeviceProfile) -> list[tuple[object, ...]]:
    """Every number of a device under ORIGINS, but for measured products and bandwidths by size."""
    return list(itertools.chain(_rates(device), _rest(device)))


def _rates(device: DeviceProfile) -> Iterator[tuple[object, ...]]:
    for tier in device.memory:
        yield _line(
            device, f"memory.{tier.name}", f"{size(tier.capacity_bytes)} at {_per_s(tier.read_bytes_per_s)}"
        )
    for name, rate in device.flops_per_s.items():
        yield _line(device, f"flops_per_s.{name}", f"{rate:.4g}")


def _rest(device: DeviceProfile) -> Iterator[tuple[object, ...]]:
    for name in _NUMBERS:
        value = getattr(device, name)
        if value not in (None, 0, 1.0):
            yield _line(device, name, f"{value:g}")
    for port, rate in device.ports.items():
        yield _line(device, f"ports.{port}", _per_s(rate))
    for mode in device.modes:
        shares = f"{mode.compute_fraction:.0%} of compute, {mode.bandwidth_fraction:.0%} of bandwidth"
        yield _line(device, f"modes.{mode.name}", f"{mode.power_w:g} W, {shares}")
    for name, value in device.extra.items():
        yield _line(device, f"extra.{name}", f"{value:.4g}")
    if device.operators:
        yield _line(device, "operators", ", ".join(sorted(device.operators)))
    if device.families:
        yield _line(device, "families", ", ".join(sorted(device.families)))


def _line(device: DeviceProfile, name: str, value: str) -> tuple[object, ...]:
    origin = device.origin(name)
    return (name, value, device.source, "-") if origin is None else (name, value, origin.mark, origin.by)


def _tera(rate: float) -> str:
    """In millions of millions, three digits."""
    tera = rate / 1e12
    return f"{tera:.0f}" if tera >= 100 else f"{tera:.3g}"


def _per_s(rate: float) -> str:
    return f"{rate / 1e9:.4g} GB/s"


def show_links(hosts: Sequence[str], answer_port: int | None, *, as_json: bool) -> None:
    """Measures the links to hosts, or answers such measurements until interrupted.

    Raises:
        InvalidRequest: a host that cannot be read, or both at once; a port that cannot be had.
        Unavailable: a host does not answer.
    """
    from pentad.resource.profile import link_probe

    if answer_port is not None:
        if hosts:
            raise InvalidRequest("--links asks, --answer-links answers", hint="leave one out", param="links")
        try:
            link_probe.serve(port=answer_port, ready=lambda port: note(f"answering on port {port}"))
        except OSError as error:
            raise InvalidRequest(
                f"port {answer_port} cannot be had: {error}",
                hint="change --answer-links",
                param="answer_links",
            ) from error
    found = []
    for text in hosts:
        host, _, port = text.rpartition(":") if text.count(":") == 1 else (text, "", str(link_probe.PORT))
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise InvalidRequest(f"{text!r} is no host", hint="write HOST or HOST:PORT", param="links")
        found.append(link_probe.measure(host, int(port)))
    if as_json:
        print_json([dataclasses.asdict(one) for one in found])
        return
    rows = [
        (one.host, duration(one.latency_s), _per_s(one.up_bytes_per_s), _per_s(one.down_bytes_per_s))
        for one in found
    ]
    print_table(("host", "latency", "to it", "from it"), rows, empty="no hosts")
