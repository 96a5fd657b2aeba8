"""Stages that several devices share, and the memory of devices that several replicas share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile
from pentad.resource.backends import collectives, share_layers
from pentad.resource.placement.base import FP32_BYTES, GIB, PlacementProblem, stage_on
from pentad.resource.placement.plan import Replica, Split, Stage


def group_on(
    problem: PlacementProblem,
    members: Sequence[tuple[DeviceProfile, float]],
    first_layer: int,
    end_layer: int,
    *,
    split: Split = "tensor",
) -> tuple[Stage, ...]:
    """The memory of layers that devices share, one entry each; of one device that of `stage_on`.

    A member holds its share of every matrix, of keys and values and of activations, beside the residual
    stream, which is held whole unless the sequence is split too. Checks nothing.
    """
    if len(members) == 1:
        return (stage_on(problem, members[0][0], first_layer, end_layer),)
    stages = []
    for device, share in members:
        whole = stage_on(problem, device, first_layer, end_layer)
        stream = min(_stream_bytes(problem), whole.activation_bytes)
        kept = stream * (share if split == "sequence" else 1.0)
        stages.append(
            replace(
                whole,
                weight_bytes=round(whole.weight_bytes * share),
                kv_bytes=round(whole.kv_bytes * share),
                activation_bytes=round((whole.activation_bytes - stream) * share + kept),
                share=share,
                split=split,
            )
        )
    return tuple(stages)


def _stream_bytes(problem: PlacementProblem) -> int:
    """The residual stream of a step and its norm."""
    load = problem.workload
    tokens = min(load.max_batch_tokens, load.prompt_tokens + load.concurrency)
    return FP32_BYTES * 2 * tokens * problem.spec.width


def check_shares(problem: PlacementProblem, replicas: Sequence[Replica]) -> None:
    """Raises Infeasible where a share is no whole number of query heads, or layers are missing."""
    heads = problem.spec.heads
    for stage in (stage for replica in replicas for stage in replica.stages):
        held = stage.share * heads
        if abs(held - round(held)) > 1e-6 * heads:
            raise Infeasible(
                f"device {stage.device!r} would run {held:g} of {heads} heads of model {problem.spec.name!r}",
                hint=f"choose shares that are multiples of 1/{heads}",
                param="share",
            )
    for group in (group for replica in replicas for group in replica.groups):
        devices = [problem.cluster.device(stage.device) for stage in group]
        if not share_layers(devices):
            names = ", ".join(
                f"{one.name!r} ({'/'.join(sorted(collectives(one))) or 'any'})" for one in devices
            )
            raise Infeasible(
                f"devices {names} have no collective library in common, so they cannot share layers",
                hint="give them different layers, or share layers between devices of one vendor",
                param="devices",
            )
    for replica in replicas:
        if replica.stages[-1].end_layer != problem.spec.layers:
            raise ValueError(
                f"a replica ends at layer {replica.stages[-1].end_layer} of {problem.spec.layers}"
            )


def check_shared_memory(replicas: Sequence[Replica]) -> None:
    """Raises Infeasible where stages of several replicas do not fit the device that they share.

    Equal layers count once, keys and values for each replica, activations for the largest.
    """
    by_device: dict[str, list[Stage]] = defaultdict(list)
    for replica in replicas:
        for stage in replica.stages:
            by_device[stage.device].append(stage)
    for device, stages in by_device.items():
        needed = held_bytes(stages)
        usable = stages[0].usable_bytes
        if needed > usable:
            raise Infeasible(
                f"device {device!r} has {usable / GIB:.1f} GiB free, its {len(stages)} stages need "
                f"{needed / GIB:.1f} GiB together",
                hint="give it fewer layers or fewer replicas, or set --weight-bits 4",
                param="memory",
            )


def held_bytes(stages: Sequence[Stage]) -> int:
    """Memory that stages on one device take together."""
    per_layer: dict[int, float] = {}
    for stage in stages:
        each = stage.weight_bytes / (stage.end_layer - stage.first_layer)
        for layer in range(*stage.layers):
            per_layer[layer] = max(per_layer.get(layer, 0.0), each)
    kv_bytes = sum(stage.kv_bytes for stage in stages)
    return round(sum(per_layer.values())) + kv_bytes + max(stage.activation_bytes for stage in stages)
