"""The operators that a model needs, and which of them a device has.

Devices with a fixed set of operators (Edge TPU, vision accelerators, crossbars) name them in their profile; a
model is then refused with the first operator that is missing, or split into what the device and what its host
computes. The words are those of TensorFlow Lite's operator list, in lower case with underscores.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.execution.device import Cluster, DeviceProfile
from pentad.execution.layers import Block, Experts, FeedForward
from pentad.execution.mixers import Attention, Norm
from pentad.execution.spec import ModelSpec, Stack, counted

_ACTIVATIONS = {
    "silu": ("logistic", "mul"),
    "gelu": ("erf", "mul", "add"),
    "gelu_tanh": ("tanh", "mul", "add"),
    "relu": ("relu",),
    "relu_squared": ("relu", "mul"),
}
_NORMS = {"rms": ("mul", "mean", "rsqrt"), "layer": ("mean", "sub", "mul", "rsqrt", "add")}
LEFT_OUT = "devices left out"
"""Subject of the decision that names devices which cannot run the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One step of a model's graph and the operators that it is made of."""

    name: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Operations in a row that are computed at one place."""

    on_device: bool
    operations: tuple[Operation, ...]


def graph_of(spec: ModelSpec) -> tuple[Operation, ...]:
    """The operations of a model in order; towers and an encoder stand in front of the main stack."""
    found: list[Operation] = []
    for i, tower in enumerate(spec.towers):
        found += _stack(tower, f"towers.{i}.")
    found.append(Operation(name="embedding", needs=("gather",)))
    if spec.encoder is not None:
        found += _stack(spec.encoder, "encoder.")
    found += _stack(spec.stack, "")
    if spec.head is not None:
        found.append(Operation(name="head", needs=("linear",)))
    return tuple(found)


def missing(spec: ModelSpec, device: DeviceProfile) -> str | None:
    """Why a device cannot run a model, in words; None where it can.

    Looking up embeddings is left to the host, which every such device has.
    """
    if device.families and spec.family not in device.families:
        return (
            f"device {device.name!r} is made for model families {', '.join(sorted(device.families))}, "
            f"model {spec.name!r} is of {spec.family!r}"
        )
    if not device.operators:
        return None
    for operation in _distinct(spec):
        lacks = [need for need in operation.needs if need not in device.operators and need != "gather"]
        if lacks:
            return (
                f"device {device.name!r} has no operator {lacks[0]!r}, which {operation.name} of model "
                f"{spec.name!r} needs (it has {', '.join(sorted(device.operators))})"
            )
    return None


def split(operations: Sequence[Operation], device: DeviceProfile) -> tuple[Segment, ...]:
    """What the device and what its host computes, in order.

    A device with `one_segment` takes the operations up to the first that it lacks; all later ones stay on the
    host, as Coral's compiler does it.
    """
    places: list[tuple[bool, Operation]] = []
    begun = ended = False
    for operation in operations:
        able = not device.operators or all(need in device.operators for need in operation.needs)
        ended = ended or (begun and not able and device.one_segment)
        places.append((able and not ended, operation))
        begun = begun or able
    return tuple(
        Segment(on_device=on, operations=tuple(operation for _, operation in group))
        for on, group in itertools.groupby(places, key=lambda place: place[0])
    )


def able_devices(cluster: Cluster, spec: ModelSpec) -> tuple[Cluster, tuple[tuple[str, str], ...]]:
    """The cluster without the devices that cannot run the model, and why each of those cannot.

    The same cluster where all can. Raises Infeasible where none can.
    """
    reasons: dict[tuple[frozenset[str], frozenset[str]], str | None] = {}
    left_out: list[tuple[str, str]] = []
    for device in cluster.devices:
        if not device.operators and not device.families:
            continue
        kind = device.operators, device.families
        if kind not in reasons:
            reasons[kind] = missing(spec, device)
        if reasons[kind] is not None:
            left_out.append((device.name, missing(spec, device) or ""))
    if not left_out:
        return cluster, ()
    names = {name for name, _ in left_out}
    devices = tuple(device for device in cluster.devices if device.name not in names)
    if not devices:
        raise Infeasible(
            left_out[0][1],
            hint="choose a model that the device supports, or add another device",
            param="device",
        )
    links = tuple(link for link in cluster.links if not names & {link.source, link.target})
    return Cluster(devices=devices, links=links, default_link=cluster.default_link), tuple(left_out)


def _distinct(spec: ModelSpec) -> Iterator[Operation]:
    """The operations without those of layers that equal the one before."""
    seen: set[tuple[str, ...]] = set()
    for operation in graph_of(spec):
        if operation.needs not in seen:
            seen.add(operation.needs)
            yield operation


def _stack(stack: Stack, prefix: str) -> Iterator[Operation]:
    if stack.stem:
        yield Operation(name=f"{prefix}stem", needs=("convolution",))
    place = 0
    for block, count in counted(stack.blocks):
        parts = tuple(_block(block))
        for _ in range(count):
            yield from (
                Operation(name=f"{prefix}layers.{place}.{name}", needs=needs) for name, needs in parts
            )
            place += 1
    if stack.final_norm is not None:
        yield Operation(name=f"{prefix}final_norm", needs=_norm(stack.final_norm))


def _block(block: Block) -> Iterator[tuple[str, tuple[str, ...]]]:
    mixer = block.mixer
    if mixer is not None:
        yield "norm", _norm(block.norm)
        yield "projections", ("linear",)
        if isinstance(mixer, Attention):
            if mixer.positions is not None:
                yield "rotation", ("mul", "add", "concatenation")
            # Of two computed matrices: devices whose weights are constants have no such product.
            yield "attention", ("batch_matmul", "softmax")
        else:
            yield "mixer", ("batch_matmul", "softmax") if mixer.pair_products() else ("scan", "mul")
        yield "output", ("linear", "add")
    if block.feed_forward is not None:
        yield "feed_forward_norm", _norm(block.norm)
        yield "feed_forward", _feed_forward(block.feed_forward)


def _feed_forward(part: FeedForward | Experts) -> tuple[str, ...]:
    if isinstance(part, Experts):
        return ("top_k", "softmax", *_feed_forward(part.expert))
    return ("linear", *_ACTIVATIONS[part.activation], *(("mul",) if part.gated else ()), "add")


def _norm(norm: Norm) -> tuple[str, ...]:
    return _NORMS[norm.kind]
