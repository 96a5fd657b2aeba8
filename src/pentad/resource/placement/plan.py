"""Plan: a graph of replicas, their stages over devices, and the flow of requests through them.

    requests --weight--> replica: stage [layers 0 to 11 on a] --link--> stage [12 to 15 on b | c, a half each]
                         `-- a prefill replica hands its keys and values to decode replicas, by weight

Every plan of the survey is one of these. HexGen: replicas of unequal pipelines whose stages are groups of
different sizes. Helix: one replica per path of its flow, which may share devices. DistServe and Splitwise:
replicas with a phase. Galaxy: one group of unequal shares, split over the sequence as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pentad.types import Decision

Split = Literal["none", "tensor", "sequence"]
"""How devices share the layers of a stage. `tensor`: heads and feed-forward columns (Megatron-LM), with two
all-reduces a layer. `sequence`: the same, and norms and residuals over the tokens, with a reduce-scatter
and an all-gather in place of each (Galaxy)."""
Role = Literal["both", "prefill", "decode"]
_CLOSE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionPart:
    """A device that holds a share of a stage's keys and values and attends to them."""

    device: str
    share: float
    kv_bytes: int
    usable_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A device and the layers it runs, with what they take of its memory.

    Neighbours in a replica with the same layers form a group: each runs its share of every layer.
    """

    device: str
    first_layer: int
    end_layer: int
    """Behind the last layer."""
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    usable_bytes: int
    share: float = 1.0
    """Of the heads and feed-forward columns of its layers; those of a group add up to 1."""
    split: Split = "none"
    attention: tuple[AttentionPart, ...] = ()
    """Where its keys and values lie and are attended to; empty: on its own device."""
    batches: int = 1
    """How many take turns between its device and those of attention."""

    def __post_init__(self) -> None:
        if not 0 <= self.first_layer < self.end_layer:
            raise ValueError(f"a stage of layers {self.first_layer} to {self.end_layer} runs nothing")
        if not 0 < self.share <= 1 or (self.share < 1) != (self.split != "none"):
            raise ValueError(f"a share of {self.share:g} with split {self.split!r} is no part of a stage")
        if self.attention and (self.kv_bytes or self.share < 1):
            raise ValueError(f"device {self.device!r} leaves attention to others, and holds keys and values")
        if self.attention and abs(sum(part.share for part in self.attention) - 1) > _CLOSE:
            raise ValueError(f"the shares of attention of device {self.device!r} do not add up to 1")

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.activation_bytes

    @property
    def layers(self) -> tuple[int, int]:
        """First and end."""
        return self.first_layer, self.end_layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A whole copy of the model: a pipeline of stages that serves its share of the requests."""

    stages: tuple[Stage, ...]
    weight: float = 1.0
    """Share of the requests that flow to it; those of a plan's replicas add up to 1, in each phase."""
    role: Role = "both"
    """Which phase of a request it computes."""

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ValueError(f"weight is {self.weight}, must be above 0 and at most 1")
        end = 0
        for group in self.groups:
            if group[0].first_layer != end:
                raise ValueError(
                    f"a stage begins at layer {group[0].first_layer}, the last one ended at {end}"
                )
            end = group[0].end_layer
            if abs(sum(stage.share for stage in group) - 1) > _CLOSE:
                raise ValueError(
                    f"the shares of layers {group[0].first_layer} to {end - 1} do not add up to 1"
                )
            if len({stage.split for stage in group}) > 1:
                raise ValueError(f"layers {group[0].first_layer} to {end - 1} are split in two ways")

    @property
    def groups(self) -> tuple[tuple[Stage, ...], ...]:
        """The pipeline: each stage with the devices that share its layers."""
        return tuple(tuple(group) for _, group in itertools.groupby(self.stages, key=lambda s: s.layers))

    @property
    def devices(self) -> tuple[str, ...]:
        """Each once, in the order of the stages; those of attention behind theirs."""
        return tuple(
            dict.fromkeys(
                name
                for stage in self.stages
                for name in (stage.device, *(part.device for part in stage.attention))
            )
        )

    @property
    def leaders(self) -> tuple[str, ...]:
        """The first device of each group, which sends to the next group."""
        return tuple(group[0].device for group in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """Requests whose prompts one replica computes and whose answers another one does."""

    source: int
    """Place of the prefill replica in the plan."""
    target: int
    """Place of the decode replica."""
    weight: float
    """Share of all requests."""
    by_layer: bool = False
    """Whether keys and values are sent layer by layer while later layers are computed (Splitwise), and not
    all behind the prompt (DistServe)."""


def handoffs_of(replicas: Sequence[Replica], given: Sequence[Handoff] = ()) -> tuple[Handoff, ...]:
    """The handoffs of a plan: those given, or else every prefill replica's to all decode replicas alike.

    Raises ValueError for replicas and handoffs that do not carry each request from its prompt to its end.
    """
    for role in ("both", "prefill", "decode"):
        weight = sum(replica.weight for replica in replicas if replica.role == role)
        if weight and abs(weight - 1) > _CLOSE:
            raise ValueError(f"the weights of replicas with role {role!r} add up to {weight:g}, not to 1")
    roles = {replica.role for replica in replicas}
    if roles not in ({"both"}, {"prefill", "decode"}):
        raise ValueError(f"replicas with roles {', '.join(sorted(roles))} do not serve whole requests")
    found = tuple(given) or tuple(
        Handoff(source=i, target=j, weight=a.weight * b.weight)
        for i, a in enumerate(replicas)
        for j, b in enumerate(replicas)
        if (a.role, b.role) == ("prefill", "decode")
    )
    for i, replica in enumerate(replicas):
        if replica.role == "both":
            continue
        side = "source" if replica.role == "prefill" else "target"
        through = sum(handoff.weight for handoff in found if getattr(handoff, side) == i)
        if abs(through - replica.weight) > _CLOSE:
            raise ValueError(f"replica {i} has the weight {replica.weight:g}, its handoffs {through:g}")
    return found


ScaleDown = Literal["proactive", "reactive"]
"""When keys and values come to the instances that go on with a prompt's answer: while it is computed, as they
pass there anyway, or behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """The plan's replicas are instances that compute one batch together, some or all of them (LoongServe)."""

    degree: int | None = None
    """How many, in fixed groups; None: chosen for each iteration."""
    scale_down: ScaleDown = "proactive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where a model runs and what is predicted to come of it."""

    strategy: str
    model: str
    replicas: tuple[Replica, ...]
    handoffs: tuple[Handoff, ...] = ()
    """From prefill to decode replicas; empty where replicas compute both phases."""
    ttft_s: float
    """Predicted time to the first token of a request that arrives while the others decode; of several
    replicas the slowest one's."""
    inter_token_s: float
    """Of several replicas the slowest one's."""
    throughput_tokens_per_s: float
    """Generated tokens of all requests together, prompts included in the time."""
    binding: str
    """The limit that the plan is nearest to, or the term that its speed hangs on where none is set."""
    cost_per_request: float | None
    """Of all devices for a request's share of the time; None where a device has no price."""
    energy_j_per_request: float | None
    """At the devices' rated power; None where a device has none."""
    rebalance_s: float | None = None
    """How often replicas of one phase may be given to the other as lengths change; None: never."""
    elastic: Elastic | None = None
    """How its replicas work on the tokens of a step together; None: each by itself."""
    source: str
    """Where the rates came from: measured, published or assumed; the weakest of all devices."""
    decisions: tuple[Decision, ...] = ()

    def __post_init__(self) -> None:
        handoffs_of(self.replicas, self.handoffs)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those of all replicas, in order."""
        return tuple(stage for replica in self.replicas for stage in replica.stages)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data for JSON."""
        data = asdict(self)
        for replica, plain in zip(self.replicas, data["replicas"], strict=True):
            for stage, entry in zip(replica.stages, plain["stages"], strict=True):
                entry["total_bytes"] = stage.total_bytes
        return data | {"stages": [stage for replica in data["replicas"] for stage in replica["stages"]]}
