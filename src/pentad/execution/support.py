"""What of a spec the program of ops cannot compute yet, in words that name the part."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pentad.errors import Incompatible
from pentad.execution.layers import Block, Experts
from pentad.execution.mixers import Attention
from pentad.execution.positions import Alibi, RelativeBuckets
from pentad.execution.spec import ModelSpec

Limits = Callable[[ModelSpec], Iterator[str]]
"""What a runner can't do of a spec, in order."""


def unsupported_parts(spec: ModelSpec) -> Iterator[str]:
    """What no runner computes yet: stacks beside the main one, and kinds of layers."""
    if spec.encoder is not None:
        yield "it has an encoder beside its decoder"
    if spec.towers:
        yield "it has towers of other modalities"
    if isinstance(spec.stack.positions, RelativeBuckets):
        yield "its positions are relative buckets"
    if spec.head is not None and (spec.head.bias or spec.head.cap is not None or spec.head.scale != 1):
        yield "its head has a bias, a cap or a scale"
    for block in dict.fromkeys(spec.blocks):
        where = f"layer {spec.blocks.index(block)}"
        yield from (f"{where} {what}" for what in _unsupported(block))
    mixers = [block.mixer for block in dict.fromkeys(spec.blocks)]
    if len({(m.heads, m.kv_heads, m.head_dim) for m in mixers if isinstance(m, Attention)}) > 1:
        yield "its layers differ in heads"
    if len({m.positions for m in mixers if isinstance(m, Attention)}) > 1:
        yield "its layers differ in positions"


def _unsupported(block: Block) -> Iterator[str]:
    mixer, feed_forward = block.mixer, block.feed_forward
    if mixer is None:
        yield "has no attention"
    elif not isinstance(mixer, Attention):
        yield f"has {mixer.kind} attention" if mixer.kind == "latent" else "is recurrent"
    else:
        if isinstance(mixer.positions, Alibi):
            yield "has ALiBi positions"
        if mixer.score_cap is not None or mixer.scale is not None:
            yield "caps or scales its scores"
        if mixer.sinks:
            yield "has attention sinks"
        if mixer.output_gate:
            yield "gates what attention gives"
        if mixer.qk_norm == "all":
            yield "normalises queries and keys over all heads"
        if mixer.qkv_bias and not mixer.key_bias:
            yield "has biases on queries and values alone"
    if block.cross is not None:
        yield "has cross-attention"
    if isinstance(feed_forward, Experts):
        yield "has routed experts"
    elif feed_forward is None:
        yield "has no feed-forward"
    elif feed_forward.clamped:
        yield "has a clamped activation"
    if block.placement not in ("pre", "post"):
        yield "normalises what its parts give"
    if block.parallel and not block.shared_norm:
        yield "has parallel parts with a norm each"
    if block.residual_scale != 1:
        yield "scales what it adds to the stream"
    if block.norm.offset or (block.norm.kind == "layer" and not block.norm.bias):
        yield "has norms with an offset or without a shift"


def first_unsupported(spec: ModelSpec, limits: Limits = unsupported_parts) -> str | None:
    """The first part that cannot be computed; None if all can."""
    return next(limits(spec), None)


def check_supported(spec: ModelSpec) -> None:
    """Raises Incompatible for a model with a part that no runner of this package computes."""
    if (part := first_unsupported(spec)) is not None:
        raise Incompatible(
            f"model {spec.name!r} cannot be computed here: {part}",
            hint="serve it with another engine and name that as a remote model",
        )
