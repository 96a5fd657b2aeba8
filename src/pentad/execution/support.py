"""What of a spec the program of ops cannot compute yet, in words that name the part."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pentad.errors import Incompatible
from pentad.execution.layers import Block
from pentad.execution.spec import Attention, ModelSpec, Stack

Limits = Callable[[ModelSpec], Iterator[str]]
"""What a runner can't do of a spec, in order."""


def unsupported_parts(spec: ModelSpec) -> Iterator[str]:
    """What no runner computes yet: stacks beside the main one, and kinds of layers."""
    if spec.towers:
        yield "it has towers of other modalities"
    if spec.branches:
        yield f"it has the branch {spec.branches[0][0]!r} above its layers"
    if spec.encoder is not None:
        yield from _unsupported_encoder(spec.encoder, spec)
    for block in dict.fromkeys(spec.blocks):
        where = f"layer {spec.blocks.index(block)}"
        yield from (f"{where} {what}" for what in _unsupported(block, spec))


def _unsupported_encoder(encoder: Stack, spec: ModelSpec) -> Iterator[str]:
    if encoder.stem:
        yield "its encoder reads something else than text"
    if encoder.width != spec.width:
        yield "its encoder has another width than its decoder"
    if encoder.causal:
        yield "its encoder sees only what stands in front"
    for block in dict.fromkeys(spec.blocks):
        if block.cross is None or block.mixer is None or block.parallel:
            yield "not every layer of its decoder attends to its own text and to the encoder's, in turn"
        elif not isinstance(block.mixer, Attention) or block.mixer.cache_row != block.cross.cache_row:
            yield "cross-attention has other heads than the attention beside it"


def _unsupported(block: Block, spec: ModelSpec) -> Iterator[str]:
    if block.cross is None:
        return
    if spec.encoder is None:
        yield "has cross-attention, and the model no encoder"
    cross = block.cross
    special = cross.score_cap is not None or cross.sinks or cross.output_gate or cross.qk_norm is not None
    if special or cross.positions is not None or cross.window is not None or cross.qkv_clip is not None:
        yield "has cross-attention of a kind that is not computed"


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
