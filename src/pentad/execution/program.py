"""What a step does, op by op, built from a ModelSpec: the order that the native kernels run.

    embed [positions] [renorm]  [norm qkv attend out  norm gate_up down] per layer  head

is what most decoders do. Where norms stand on what parts give, `out` and `down` leave it apart, and an `add`
norms it and brings it to the stream. Where they stand behind the sum, a `renorm` norms the stream itself.
Parallel parts read the stream before either is added to it. An `attn_gate` stands behind `qkv`. A
feed-forward without a gate has `up` in the place of `gate_up`. Layers with experts have `route` in the place
of `norm`, since the choice of experts wants numbers that are not rounded, and `experts_in` and `experts_out`
for `gate_up` and `down`. Layers with a state have `convolve`, `recur` (but for short convolutions) and
`gate_out` in the place of `qkv` and `attend`. Latent attention has `latent` in the place of `qkv`, and
`latent_out` behind `attend`. What a layer lacks, a mixer or a feed-forward, has no ops.

An op ends where others need all of its result. Where a matrix is split over the ranks of a group its
`collective` says how they meet behind it: what `out` and `down` give is added up, logits are put
together. The plain PyTorch program (torch/program.py) reads the same records, layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pentad.execution.layers import Activation, Block, Experts, FeedForward
from pentad.execution.mixers import Attention, LatentAttention, Mixer, Norm, Recurrent
from pentad.execution.positions import Growth, Rope
from pentad.execution.spec import ModelSpec

OpKind = Literal[
    "embed",
    "norm",
    "qkv",
    "attend",
    "out",
    "gate_up",
    "down",
    "head",
    "positions",
    "renorm",
    "add",
    "up",
    "attn_gate",
    "route",
    "experts_in",
    "experts_out",
    "convolve",
    "recur",
    "gate_out",
    "latent",
    "latent_out",
]
Collective = Literal["sum", "gather"]
MODEL = -1
"""The layer number of what belongs to no layer."""


@dataclass(frozen=True, slots=True)
class Op:
    """One op of a step, with the parameters that its kind reads."""

    kind: OpKind
    layer: int = MODEL
    tensor: str | None = None
    """Of a norm and of `route`: whose weights, by canonical name without the layer; None: none, it passes
    on what it reads."""
    collective: Collective | None = None
    norm: Norm | None = None
    """Of an op with weights of a norm; of `qkv`: of the norms of heads."""
    activation: Activation | Literal["clamped"] | None = None
    rotation: int | None = None
    """Of `qkv` and `latent`: which of `rotations`; of `attend`: the same where it has dual chunks."""
    window: int | None = None
    """Of `attend`: how many tokens are seen; None: all."""
    apart: bool = False
    """Of `out`, `down` and `experts_out`: whether an `add` follows, which brings the result to the stream."""
    offset: int = 0
    """Of `positions`: the row of the first position."""
    scale: float = 1.0
    """Factor of what `embed` and `head` give, of what is brought to the stream, and of scores."""
    cap: float | None = None
    """Of `head` and `attend`: logits or scores z become cap * tanh(z / cap)."""
    gated: bool = False
    """Of `attend`: whether what it gives is multiplied by what `attn_gate` left."""
    chunk: int | None = None
    """Of `attend`: tokens of the chunks of a text, none of which sees another; None: there are none."""
    each: bool = False
    """Of `qkv`: whether the norm of each head has scales of its own."""
    norm_last: bool = False
    """Of `qkv`: whether norms of heads stand behind the rotation."""
    clip: float | None = None
    """Of `qkv`: what the products give is cut at plus and minus this."""
    growth: Growth | None = None
    """Of `qkv`: how queries grow with their position."""
    interleaved: bool = False
    """Of `latent`: whether neighbours turn together, and not numbers that are half of them apart."""


def rotations(spec: ModelSpec) -> tuple[Rope, ...]:
    """The kinds of rotary positions that layers have, each once."""
    found = (block.mixer.rotation for block in spec.blocks if block.mixer is not None)
    return tuple(dict.fromkeys(rope for rope in found if rope is not None))


def step_program(spec: ModelSpec) -> tuple[Op, ...]:
    """The ops of a step of a decoder."""
    ropes = rotations(spec)
    ops = [*_entry(spec)]
    for i, block in enumerate(spec.blocks):
        ops += _layer(i, block, ropes)
    return (*ops, _head(spec))


def _entry(spec: ModelSpec) -> Iterator[Op]:
    """What brings tokens to the first layer."""
    yield Op("embed", scale=spec.embedding_scale)
    if spec.learned is not None:
        yield Op("positions", offset=spec.learned.offset)
    if (norm := spec.stack.embedding_norm) is not None:
        yield Op("renorm", tensor="embed_norm", norm=norm)


def _head(spec: ModelSpec) -> Op:
    head, norm = spec.head, spec.stack.final_norm
    assert head is not None
    tensor = None if norm is None else "final_norm"
    return Op("head", tensor=tensor, collective="gather", norm=norm, scale=head.scale, cap=head.cap)


def _layer(i: int, block: Block, ropes: tuple[Rope, ...]) -> Iterator[Op]:
    """The ops of layer i. Parallel parts are computed up to their last matrix before either is added."""
    reads = block.placement in ("pre", "both")

    def read(tensor: str) -> Op:
        return Op("norm", i, tensor, norm=block.norm) if reads else Op("norm", i)

    mixer, routed = block.mixer, isinstance(block.feed_forward, Experts)
    feeding = _feeding(i, block, read)
    if mixer is None:
        if not routed:
            yield read("ffn_norm")
        yield from feeding
        return
    yield read("attn_norm")
    yield from _reading(i, block, mixer, ropes)
    if block.parallel:
        if not block.shared_norm and not routed:
            yield read("ffn_norm")
        yield next(feeding)
        yield from _mixed(i, block, mixer, ropes)
    else:
        yield from _mixed(i, block, mixer, ropes)
        if not routed and block.feed_forward is not None:
            yield read("ffn_norm")
    yield from feeding


def _reading(i: int, block: Block, mixer: Mixer, ropes: tuple[Rope, ...]) -> Iterator[Op]:
    """What a mixer reads the stream for."""
    rope = mixer.rotation
    if isinstance(mixer, LatentAttention):
        interleaved = mixer.rope.pairing == "interleaved"
        yield Op("latent", i, rotation=ropes.index(mixer.rope), interleaved=interleaved)
        return
    if not isinstance(mixer, Attention):
        yield Op("convolve", i)
        return
    yield Op(
        "qkv",
        i,
        norm=replace(block.norm, kind=mixer.qk_norm_kind),
        rotation=None if rope is None else ropes.index(rope),
        each=mixer.qk_norm == "each",
        norm_last=mixer.qk_norm_last,
        clip=mixer.qkv_clip,
        growth=mixer.growth,
    )
    if mixer.output_gate:
        yield Op("attn_gate", i)


def _mixed(i: int, block: Block, mixer: Mixer, ropes: tuple[Rope, ...]) -> Iterator[Op]:
    if isinstance(mixer, LatentAttention):
        yield Op("attend", i, scale=mixer.score_scale)
        yield Op("latent_out", i)
    elif isinstance(mixer, Attention):
        rope = mixer.rotation
        scale = mixer.head_dim**-0.5 if mixer.scale is None else mixer.scale
        yield Op(
            "attend",
            i,
            rotation=ropes.index(rope) if rope is not None and rope.dual is not None else None,
            window=mixer.window,
            chunk=mixer.chunk,
            scale=scale,
            cap=mixer.score_cap,
            gated=mixer.output_gate,
        )
    else:
        if isinstance(mixer, Recurrent):
            yield Op("recur", i)
        yield Op("gate_out", i)
    yield from _given("out", i, block, "attn")


def _feeding(i: int, block: Block, read: Callable[[str], Op]) -> Iterator[Op]:
    """First what reads the stream, then the rest."""
    inner = block.feed_forward
    if inner is None:
        return
    if isinstance(inner, Experts):
        yield replace(read("attn_norm" if block.shared_norm else "ffn_norm"), kind="route")
        yield Op("experts_in", i, activation=_activation(inner.expert))
        yield from _given("experts_out", i, block, "ffn")
        return
    yield Op("gate_up" if inner.gated else "up", i, activation=_activation(inner))
    yield from _given("down", i, block, "ffn")


def _activation(inner: FeedForward) -> Activation | Literal["clamped"]:
    return "clamped" if inner.clamped else inner.activation


def _given(kind: Literal["out", "down", "experts_out"], i: int, block: Block, part: str) -> Iterator[Op]:
    """How what a part gives comes to the stream."""
    scale = block.residual_scale
    if block.placement in ("both", "output"):
        yield Op(kind, i, collective="sum", apart=True)
        yield Op("add", i, f"{part}_out_norm", norm=block.norm, scale=scale)
        return
    yield Op(kind, i, collective="sum", scale=scale)
    if block.placement == "post":
        yield Op("renorm", i, f"{part}_norm", norm=block.norm)
