"""What bounds each phase of a request on a device: reading memory, computing, or the network.

A phase is bound by the resource that it would keep busy longest if it had that one alone (Williams et al.,
Roofline, 2009). Prompts are usually bound by compute, decoding by reading the weights and the cache, decoding
over several machines by what they send each other, loading by the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pentad.execution.device import DeviceProfile, LinkSpeed
from pentad.execution.form import ModelForm
from pentad.execution.spec import ModelSpec, counted
from pentad.resource.cost import products_of
from pentad.resource.matrices import flops_per_s, read_bytes_per_s

Bound = Literal["memory", "compute", "network", "disk"]
Phase = Literal["load", "prefill", "decode", "distributed decode"]
ACTIVATION_BYTES = 2
SENDS_PER_LAYER = 2
"""All-reduces of a layer that several devices share."""
REMEDIES: Mapping[Bound, str] = {
    "memory": "fewer bits for weights or cache, more sequences in a step",
    "compute": "cached prefixes, a precision that the device computes faster, more devices",
    "network": "fewer devices that share a layer, a pipeline instead, a faster link",
    "disk": "weights that stay loaded, or a faster disk",
}
"""What makes a phase shorter that is bound so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a phase waits for."""

    phase: Phase
    bound: Bound
    seconds: Mapping[Bound, float]
    """That each resource is busy for a step of it."""

    @property
    def remedy(self) -> str:
        return REMEDIES[self.bound]


def prefill_label(spec: ModelSpec, form: ModelForm, device: DeviceProfile, tokens: int) -> Label:
    """Of one prompt of so many tokens, computed in one step."""
    pairs = tokens * (tokens + 1) // 2
    return _label("prefill", _step(spec, form, device, tokens=tokens, slots=tokens, pairs=pairs))


def decode_label(
    spec: ModelSpec, form: ModelForm, device: DeviceProfile, *, context: int, sequences: int = 1
) -> Label:
    """Of a step that draws one token for each of the sequences."""
    slots = sequences * context
    return _label("decode", _step(spec, form, device, tokens=sequences, slots=slots, pairs=slots))


def distributed_label(
    spec: ModelSpec,
    form: ModelForm,
    device: DeviceProfile,
    link: LinkSpeed,
    *,
    devices: int,
    context: int,
    sequences: int = 1,
) -> Label:
    """Of such a step on several equal devices that share every layer."""
    alone = _step(spec, form, device, tokens=sequences, slots=sequences * context, pairs=sequences * context)
    sent_s = link.latency_s + sequences * spec.width * ACTIVATION_BYTES / devices / link.bytes_per_s
    shared: dict[Bound, float] = {name: seconds / devices for name, seconds in alone.items()}
    shared["network"] = spec.layers * SENDS_PER_LAYER * 2 * (devices - 1) * sent_s
    return _label("distributed decode", shared)


def load_label(spec: ModelSpec, form: ModelForm, device: DeviceProfile) -> Label | None:
    """Of reading the weights from the disk into memory; None where the disk's rate is not known."""
    disk = next((tier for tier in device.memory if tier.name == "disk"), None)
    if disk is None:
        return None
    size = form.weight_bytes(spec.parameters)
    return _label(
        "load", {"disk": size / disk.read_bytes_per_s, "memory": size / read_bytes_per_s(device, size)}
    )


def _step(
    spec: ModelSpec, form: ModelForm, device: DeviceProfile, *, tokens: int, slots: int, pairs: int
) -> dict[Bound, float]:
    weights = form.weight_bytes(spec.layer_parameters() + spec.vocab_size * spec.width)
    size = weights + form.kv_bytes(spec, slots)
    products = sum(block.mixer.pair_products() for block in spec.blocks if block.mixer is not None)
    multiplied = sum(
        count * product.count * product.share * product.n * product.k
        for block, count in counted(spec.blocks)
        for product in products_of(block, spec.width)
    )
    matrices_s = 2 * tokens * multiplied / flops_per_s(device, form.weight_bits)
    return {
        "memory": size / read_bytes_per_s(device, size),
        "compute": matrices_s + 2 * pairs * products / flops_per_s(device, form.kv_bits),
    }


def _label(phase: Phase, seconds: Mapping[Bound, float]) -> Label:
    return Label(phase=phase, bound=max(seconds, key=seconds.__getitem__), seconds=seconds)
