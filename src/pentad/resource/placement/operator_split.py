"""Step times of layers whose dense products one device computes while others attend to keys and values.

dense device   A ffn, qkv | B ffn, qkv | A ...      two batches take turns, so that neither side waits
attention      B          | A          | B ...      queries come over the link, results go back
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.execution.device import Link
from pentad.execution.form import ModelForm
from pentad.resource.matrices import read_bytes_per_s, usable_bytes
from pentad.resource.placement.base import GIB, PlacementProblem, stage_on
from pentad.resource.placement.costs import LayerCost
from pentad.resource.placement.pipeline import ACTIVATION_BYTES, link_between
from pentad.resource.placement.plan import AttentionPart, Stage
from pentad.resource.step_shape import StepShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfers:
    """Bytes of one step that go to one of the attention devices and back."""

    sent_bytes: float
    """Queries, keys and values of new tokens."""
    back_bytes: float
    """What attention gives, and earlier keys and values where a prompt is computed in pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    """Predicts the steps of a stage that leaves attention to other devices.

    Answers attend where keys and values lie. Prompts attend on the dense device, which has just computed
    their keys and values; these are sent along, and those of earlier pieces are fetched back. Each layer
    waits for the way to the attention devices and back. Two batches that take turns hide the shorter side
    behind the longer; a batch by itself waits for both.

    Source: FastDecode (He and Zhai, 2024, section 4); ours: prompts, and times from device profiles.
    """

    dense: LayerCost
    attention: tuple[LayerCost, ...]
    shares: tuple[float, ...]
    to: tuple[Link, ...]
    back: tuple[Link, ...]
    form: ModelForm
    batches: int

    def seconds(self, shape: StepShape) -> float:
        """Wall time of one step of this stage."""
        dense_s, attention_s = self.sides(shape)
        if self.batches == 1 or shape.sequences < self.batches:
            return dense_s + attention_s
        return self.batches * max(self.sides(shape.part(self.batches)))

    def sides(self, shape: StepShape) -> tuple[float, float]:
        """Seconds of the dense device, and of the slowest attention device with its transfers."""
        answers, prompts = _phases(shape)
        matrices, _, elementwise, overhead = self.dense.terms(shape)
        dense_s = matrices + elementwise + overhead
        if prompts.slots:
            dense_s += self.dense.terms(prompts)[1]
        away = [self._away_s(place, answers, shape) for place in range(len(self.attention))]
        return dense_s, max(away)

    def transfers(self, shape: StepShape, place: int) -> Transfers:
        """What one of the attention devices gets and gives in a step."""
        answers, prompts = _phases(shape)
        spec, layers = self.dense.spec, self.dense.num_layers
        width = layers * spec.heads * spec.head_dim * ACTIVATION_BYTES
        slot = self.form.kv_bytes(spec, 1) * layers / spec.layers
        new = answers.tokens + prompts.tokens
        share = self.shares[place]
        earlier = max(0, prompts.slots - prompts.tokens)
        return Transfers(
            sent_bytes=share * (answers.tokens * width + new * slot),
            back_bytes=share * (answers.tokens * width + earlier * slot),
        )

    def _away_s(self, place: int, answers: StepShape, shape: StepShape) -> float:
        moved, to, back = self.transfers(shape, place), self.to[place], self.back[place]
        sent_s = moved.sent_bytes / to.bytes_per_s + moved.back_bytes / back.bytes_per_s
        attended_s = self.shares[place] * self.attention[place].terms(answers)[1] if answers.slots else 0.0
        return attended_s + sent_s + self.dense.num_layers * (to.latency_s + back.latency_s)

    def binding(self, shape: StepShape) -> str:
        """What takes most of the step."""
        dense_s, attention_s = self.sides(shape)
        return self.dense.binding(shape) if dense_s >= attention_s else "attention elsewhere"


def _phases(shape: StepShape) -> tuple[StepShape, StepShape]:
    """The answers and the prompts of a step, as far as attention counts them."""
    prompts = shape.chunk_tokens
    answers = replace(
        shape,
        tokens=shape.tokens - prompts,
        slots=shape.decode_pairs,
        chunk_pairs=0,
        chunk_tokens=0,
        masked_pairs=0,
    )
    rest = replace(
        shape, tokens=prompts, slots=shape.slots - shape.decode_pairs, decode_pairs=0, padded_slots=0
    )
    return answers, rest


def operator_cost(problem: PlacementProblem, stage: Stage) -> OperatorCost:
    """The step times of a stage with attention elsewhere. Raises Infeasible where a link is missing."""
    names = [part.device for part in stage.attention]

    def cost(name: str) -> LayerCost:
        return problem.costs.cost(
            problem.cluster.device(name), problem.spec, problem.form, stage.first_layer, stage.end_layer
        )

    return OperatorCost(
        dense=cost(stage.device),
        attention=tuple(cost(name) for name in names),
        shares=tuple(part.share for part in stage.attention),
        to=tuple(link_between(problem.cluster, stage.device, name) for name in names),
        back=tuple(link_between(problem.cluster, name, stage.device) for name in names),
        form=problem.form,
        batches=stage.batches,
    )


def split_stage(problem: PlacementProblem, dense: str, attention: Sequence[str], *, batches: int) -> Stage:
    """All layers on one device, their keys and values on others by the rate at which these read.

    Raises Infeasible where weights or keys and values have no room.
    """
    devices = [problem.cluster.device(name) for name in attention]
    whole = stage_on(problem, problem.cluster.device(dense), 0, problem.spec.layers)
    rates = [read_bytes_per_s(device, whole.kv_bytes) for device in devices]
    parts = tuple(
        AttentionPart(
            device=device.name,
            share=rate / sum(rates),
            kv_bytes=round(whole.kv_bytes * rate / sum(rates)),
            usable_bytes=usable_bytes(device, problem.memory_fraction),
        )
        for device, rate in zip(devices, rates, strict=True)
    )
    stage = replace(whole, kv_bytes=0, attention=parts, batches=batches)
    if stage.total_bytes > stage.usable_bytes:
        raise _no_room(dense, "weights and activations", stage.total_bytes, stage.usable_bytes)
    for part in parts:
        if part.kv_bytes > part.usable_bytes:
            raise _no_room(part.device, "its share of keys and values", part.kv_bytes, part.usable_bytes)
    return stage


def _no_room(device: str, what: str, needed: int, usable: int) -> Infeasible:
    return Infeasible(
        f"device {device!r} has {usable / GIB:.1f} GiB free, it needs {needed / GIB:.1f} GiB for {what}",
        hint="set --weight-bits 4, lower --concurrency, or add a device",
        param="memory",
    )
