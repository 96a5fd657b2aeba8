"""Reparallelisation: a parallel shape for the devices that are left, and who takes which part of it.

shape (replicas D, pipeline P, tensor T):  replica 0: |stage 0: shard 0, 1|stage 1: shard 0, 1|
                                           replica 1: |stage 0: shard 0, 1|stage 1: shard 0, 1|
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pentad.errors import Infeasible
from pentad.resource.assignment import least_cost_assignment


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shape:
    """How a model is cut over devices."""

    replicas: int = 1
    pipeline: int = 1
    """Stages of consecutive layers."""
    tensor: int = 1
    """Shards of each layer."""

    @property
    def devices(self) -> int:
        return self.replicas * self.pipeline * self.tensor

    def positions(self) -> tuple[Position, ...]:
        """All parts, by replica, stage and shard."""
        return tuple(
            Position(
                replica=d,
                first=p / self.pipeline,
                end=(p + 1) / self.pipeline,
                low=t / self.tensor,
                high=(t + 1) / self.tensor,
            )
            for d in range(self.replicas)
            for p in range(self.pipeline)
            for t in range(self.tensor)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What one device holds: a range of the layers and a range of each layer's width, 0 to 1."""

    replica: int
    first: float
    end: float
    low: float
    high: float

    @property
    def share(self) -> float:
        """Of the model's weights."""
        return (self.end - self.first) * (self.high - self.low)

    def common(self, other: Position) -> float:
        """Share of the model's weights that both hold."""
        layers = min(self.end, other.end) - max(self.first, other.first)
        width = min(self.high, other.high) - max(self.low, other.low)
        return max(0.0, layers) * max(0.0, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedModel:
    """What choosing a shape needs to know of a model on devices that are all alike."""

    weight_bytes: float
    layers: int
    memory_bytes: float
    """Of a device, for weights; what is beside them holds KV blocks."""
    read_bytes_per_s: float
    """Of a device's memory: a token reads all weights once."""
    reduce_s: float
    """What adding a layer's shards up takes per token."""
    hop_s: float
    """From a stage to the next one, per token."""
    batch: int = 8
    """Requests that a stage computes at once."""
    most_tensor: int = 8

    def token_s(self, shape: Shape) -> float:
        """Seconds between the tokens of a request."""
        reading_s = self.weight_bytes / shape.tensor / self.read_bytes_per_s
        return (
            reading_s + (shape.tensor > 1) * self.layers * self.reduce_s + (shape.pipeline - 1) * self.hop_s
        )

    def tokens_per_s(self, shape: Shape) -> float:
        """With all slots of all stages taken."""
        return shape.replicas * self.slots(shape) / self.token_s(shape)

    def slots(self, shape: Shape) -> int:
        """Requests that a replica computes at once: a batch in each of its stages."""
        return self.batch * shape.pipeline

    def shapes(self, devices: int) -> Iterator[Shape]:
        """Those that fit, with as many replicas as so many devices hold."""
        tensor = 1
        while tensor <= min(self.most_tensor, devices):
            for pipeline in range(1, min(self.layers, devices // tensor) + 1):
                if self.weight_bytes / (pipeline * tensor) <= self.memory_bytes:
                    yield Shape(replicas=devices // (pipeline * tensor), pipeline=pipeline, tensor=tensor)
            tensor *= 2


def best_shape(model: ShardedModel, devices: int, tokens_per_s: float) -> Shape:
    """The shape with the shortest time between tokens of those that keep up with the load, else the one that
    makes most tokens.

    Raises:
        Infeasible: the weights do not fit on so many devices.

    Source: SpotServe (Miao et al., ASPLOS'24, section 4.1, algorithm 1).
    """
    found = list(model.shapes(devices))
    if not found:
        raise Infeasible(
            f"the weights take {model.weight_bytes / 2**30:.1f} GiB, {devices} devices hold "
            f"{devices * model.memory_bytes / 2**30:.1f} GiB",
            hint="add devices, or set --weight-bits 4",
            param="memory",
        )
    able = [shape for shape in found if model.tokens_per_s(shape) >= tokens_per_s]
    if able:
        return min(able, key=lambda shape: (model.token_s(shape), shape.devices))
    return max(found, key=lambda shape: (model.tokens_per_s(shape), -model.token_s(shape)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """Who takes which part, and what that moves."""

    placed: Mapping[str, Position]
    """By device; devices that are not needed are left out."""
    moved_bytes: float
    """Weights and KV that devices do not hold yet, all together."""
    most_bytes: float
    """Of one device: what the change waits for when all receive at once."""
    continued: Mapping[int, int] = field(default_factory=dict)
    """New replica to the old one whose requests it goes on with."""


def migrate(
    now: Mapping[str, Position],
    devices: Sequence[str],
    shape: Shape,
    *,
    weight_bytes: float,
    kv_bytes: Mapping[int, float] | None = None,
) -> Migration:
    """Gives each part of a shape to the device that holds most of it, so that the least is moved.

    Kuhn and Munkres' matching over devices and parts, whose gain is the weights and the KV in common. The
    replicas with most KV go on: the new replica i takes up the requests of the one with the i-th most.

    Args:
        now: what devices hold; those that are gone are left out.
        devices: those that there are.
        shape: to be taken, of no more devices.
        weight_bytes: of the whole model.
        kv_bytes: of each present replica's requests, over all its devices.

    Source: SpotServe (Miao et al., ASPLOS'24, section 4.2, device mapper).
    """
    kv = dict(kv_bytes or {})
    ranked = sorted(kv, key=lambda replica: -kv[replica])
    continued = dict(zip(range(shape.replicas), ranked, strict=False))
    positions = shape.positions()
    held = [now.get(device) for device in devices]

    def need(position: Position) -> float:
        return position.share * (weight_bytes + kv.get(continued.get(position.replica, -1), 0.0))

    def has(position: Position, old: Position | None) -> float:
        if old is None:
            return 0.0
        same = old.replica == continued.get(position.replica)
        return position.common(old) * (weight_bytes + (kv.get(old.replica, 0.0) if same else 0.0))

    costs = [[need(position) - has(position, old) for old in held] for position in positions]
    chosen = least_cost_assignment(costs)
    return Migration(
        placed={devices[at]: position for position, at in zip(positions, chosen, strict=True)},
        moved_bytes=sum(row[at] for row, at in zip(costs, chosen, strict=True)),
        most_bytes=max((row[at] for row, at in zip(costs, chosen, strict=True)), default=0.0),
        continued=continued,
    )


def moved_in_order(
    now: Mapping[str, Position], devices: Sequence[str], shape: Shape, *, weight_bytes: float
) -> float:
    """Weights that are moved if devices take the parts in the order of their names: the naive mapping."""
    return sum(
        weight_bytes * (position.share - (position.common(now[device]) if device in now else 0.0))
        for device, position in zip(devices, shape.positions(), strict=False)
    )
