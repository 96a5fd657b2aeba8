"""The program of ops and the rotations of a model as the kernels take them (kernels/native.h)."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.mixers import Attention, LatentAttention, Mixer, Recurrent, ShortConvolution
from pentad.execution.native.structs import (
    ACTIVATIONS,
    COLLECTIVES,
    EXPERT_SCORES,
    MIXERS,
    OPS,
    TENSORS,
    ExpertChoice,
    MixerNumbers,
    ProgramOp,
    Rotation,
)
from pentad.execution.program import Op, rotations, step_program
from pentad.execution.rope import inverse_frequencies
from pentad.execution.spec import ModelSpec


def packed_program(spec: ModelSpec) -> ctypes.Array[ProgramOp]:
    """The ops of a step."""
    ops = [_packed(op) for op in step_program(spec)]
    return (ProgramOp * len(ops))(*ops)


def dense_width(spec: ModelSpec) -> int:
    """Hidden columns of the widest feed-forward that all tokens go through by themselves, 32 at least."""
    inner = [block.feed_forward for block in spec.blocks]
    return max([32, *(one.width for one in inner if isinstance(one, FeedForward))])


def expert_choices(spec: ModelSpec) -> Iterator[tuple[int, ExpertChoice]]:
    """The layers that have experts, and how their tokens go to them."""
    for layer, block in enumerate(spec.blocks):
        if isinstance(routed := block.feed_forward, Experts):
            yield (
                layer,
                ExpertChoice(
                    count=routed.count,
                    per_token=routed.per_token,
                    width=routed.expert.width,
                    shared_width=0 if routed.shared is None else routed.shared.width,
                    scores=EXPERT_SCORES[routed.scores],
                    normalised=int(routed.normalised),
                    choice_bias=int(routed.router_bias == "choice"),
                    groups=routed.groups,
                    chosen_groups=routed.chosen_groups,
                    weigh_inputs=int(routed.weigh_inputs),
                    weight_scale=routed.weight_scale,
                    rivals_within=routed.rivals_within,
                ),
            )


def packed_mixers(spec: ModelSpec) -> ctypes.Array[MixerNumbers]:
    """How each layer mixes tokens."""
    return (MixerNumbers * spec.layers)(*(_numbers(block.mixer) for block in spec.blocks))


def _numbers(mixer: Mixer | None) -> MixerNumbers:
    if mixer is None:
        return MixerNumbers(kind=MIXERS["none"])
    if isinstance(mixer, Attention):
        size = mixer.head_dim
        sizes = {"heads": mixer.heads, "groups": mixer.kv_heads, "key_dim": size, "value_dim": size}
        return MixerNumbers(kind=MIXERS["attention"], **sizes)
    if isinstance(mixer, LatentAttention):
        row = mixer.cache_row
        return MixerNumbers(
            kind=MIXERS["latent"],
            heads=mixer.heads,
            groups=row.heads,
            key_dim=row.key_dim,
            value_dim=row.value_dim,
            eps=mixer.norm_eps,
            plain_dim=mixer.nope_dim,
            out_dim=mixer.value_dim,
            query_rank=mixer.q_rank or 0,
        )
    if isinstance(mixer, ShortConvolution):
        return MixerNumbers(kind=MIXERS["convolution"], conv=mixer.conv, channels=mixer.channels)
    assert isinstance(mixer, Recurrent)
    least, most = mixer.step_limits or (0.0, math.inf)
    return MixerNumbers(
        kind=MIXERS[mixer.rule],
        heads=mixer.heads,
        groups=mixer.groups,
        key_dim=mixer.key_dim,
        value_dim=mixer.value_dim,
        conv=mixer.conv,
        channels=mixer.convolved,
        norm_groups=mixer.norm_groups,
        eps=mixer.norm_eps,
        least_step=least,
        most_step=most,
    )


def packed_rotations(spec: ModelSpec) -> ctypes.Array[Rotation]:
    """The rotations that ops name, with the memory that they point to."""
    kept = []
    ropes = rotations(spec)
    packed = (Rotation * len(ropes))()
    for place, rope in zip(packed, ropes, strict=True):
        frequencies = inverse_frequencies(rope)
        kept.append(frequencies)
        place.dim = rope.dim
        place.magnitude = rope.scaling.magnitude if rope.scaling is not None else 1.0
        place.inverse_frequencies = frequencies.ctypes.data
        if rope.dual is not None:
            place.length, place.reach = rope.dual.length, rope.dual.reach
    packed.kept = kept  # type: ignore[attr-defined]
    return packed


def _packed(op: Op) -> ProgramOp:
    norm, growth = op.norm, op.growth
    return ProgramOp(
        kind=OPS[op.kind],
        layer=op.layer,
        tensor=TENSORS[op.tensor] if op.tensor else 0,
        collective=COLLECTIVES[op.collective],
        centred=int(norm is not None and norm.kind == "layer"),
        activation=ACTIVATIONS[op.activation] if op.activation else 0,
        rotation=-1 if op.rotation is None else op.rotation,
        window=op.window or 0,
        apart=int(op.apart),
        offset=op.offset if growth is None else growth.offset,
        gated=int(op.gated),
        chunk=op.chunk or 0,
        each=int(op.each),
        norm_last=int(op.norm_last),
        period=0 if growth is None else growth.period,
        smooth=int(growth is not None and not growth.steps),
        interleaved=int(op.interleaved),
        eps=0.0 if norm is None else norm.eps,
        scale=op.scale,
        cap=op.cap or 0.0,
        clip=op.clip or 0.0,
        growth=0.0 if growth is None else growth.weight,
    )
