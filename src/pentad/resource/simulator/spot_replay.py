"""A model on devices that come and go: what its requests see if parts move, or if everything starts anew."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pentad.resource.scaling.reparallel import (
    Position,
    Shape,
    ShardedModel,
    best_shape,
    migrate,
    moved_in_order,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotRequest:
    """A request of a replay."""

    arrived_s: float
    tokens: float
    """Steps that it takes: its answer's, and its prompt's in the time of as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotChange:
    """Which devices there are from an instant on."""

    at_s: float
    devices: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class SpotReport:
    """What a replay showed."""

    completion_s: list[float] = field(default_factory=list)
    moved_bytes: float = 0.0
    """Weights and KV that went from device to device."""
    in_order_bytes: float = 0.0
    """Weights that would have been moved had devices taken parts in the order of their names."""
    changes: int = 0
    shapes: list[Shape] = field(default_factory=list)


@dataclass(slots=True)
class _Running:
    request: SpotRequest
    left: float


def replay_spot(
    model: ShardedModel,
    changes: Sequence[SpotChange],
    requests: Sequence[SpotRequest],
    *,
    tokens_per_s: float,
    kv_token_bytes: float,
    link_bytes_per_s: float,
    disk_bytes_per_s: float,
    restart_s: float,
    how: Literal["migrate", "restart"],
) -> SpotReport:
    """Replays requests while devices come and go; at each change the shape is chosen anew.

    `migrate`: parts go where most of them is already, all computation waits for the device that receives
    most, and requests go on at the token that they had, as far as there is a replica for them. `restart`:
    the engines start anew, load their weights from disk, and every request begins again.

    Args:
        model: on these devices.
        changes: ascending, the first at 0.
        requests: ascending.
        tokens_per_s: the load that a shape has to keep up with.
        kv_token_bytes: KV of one token, over all layers.
        link_bytes_per_s: between devices.
        disk_bytes_per_s: of a device's disk.
        restart_s: what an engine takes to start before it loads weights.
        how: what happens at a change.
    """
    report = SpotReport()
    waiting: deque[_Running] = deque()
    batches: list[list[_Running]] = []
    placed: dict[str, Position] = {}
    shape: Shape | None = None
    now_s, stalled_s = 0.0, 0.0
    coming, steps = deque(requests), deque(changes)
    while coming or waiting or any(batches):
        for batch in batches if shape is not None and now_s >= stalled_s else ():
            while waiting and len(batch) < model.slots(shape):  # type: ignore[arg-type]
                batch.append(waiting.popleft())
        token_s = model.token_s(shape) if shape is not None else 1.0
        moving = now_s >= stalled_s
        least = min((each.left for batch in batches for each in batch), default=float("inf"))
        next_s = min(
            coming[0].arrived_s if coming else float("inf"),
            steps[0].at_s if steps else float("inf"),
            now_s + least * token_s if moving else stalled_s,
        )
        if moving:
            for batch in batches:
                for each in batch:
                    each.left -= (next_s - now_s) / token_s
        now_s = next_s
        for batch in batches:
            done = [each for each in batch if each.left <= 1e-9]
            report.completion_s += [now_s - each.request.arrived_s for each in done]
            batch[:] = [each for each in batch if each.left > 1e-9]
        while coming and coming[0].arrived_s <= now_s:
            waiting.append(_Running(coming[0], coming.popleft().tokens))
        if not steps or steps[0].at_s > now_s:
            continue
        devices = steps.popleft().devices
        new = best_shape(model, len(devices), tokens_per_s)
        there = {device: position for device, position in placed.items() if device in devices}
        if new == shape and len(there) == len(placed):
            continue
        kv = {i: kv_token_bytes * sum(e.request.tokens - e.left for e in b) for i, b in enumerate(batches)}
        found = migrate(there, devices, new, weight_bytes=model.weight_bytes, kv_bytes=kv)
        report.shapes.append(new)
        if shape is not None:
            report.changes += 1
            report.moved_bytes += found.moved_bytes
            report.in_order_bytes += moved_in_order(there, devices, new, weight_bytes=model.weight_bytes)
        old, batches = batches, [[] for _ in range(new.replicas)]
        continued = found.continued if how == "migrate" else {}
        for at, before in continued.items():
            batches[at] = old[before][: model.slots(new)]
            old[before] = old[before][model.slots(new) :]
        again = [_Running(each.request, each.request.tokens) for batch in old for each in batch]
        waiting.extendleft(sorted(again, key=lambda each: -each.request.arrived_s))
        if shape is not None:
            share = model.weight_bytes / (new.pipeline * new.tensor)
            reload_s = restart_s + share / disk_bytes_per_s
            # The end of a device is announced, so that it still sends its part.
            stall_s = found.most_bytes / link_bytes_per_s if how == "migrate" else reload_s
            stalled_s = now_s + stall_s
        shape, placed = new, dict(found.placed)
    return report
