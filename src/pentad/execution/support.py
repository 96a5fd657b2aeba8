"""What of a spec the program of ops cannot compute yet, in words that name the part."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pentad.errors import Incompatible
from pentad.execution.layers import Block
from pentad.execution.spec import ModelSpec

Limits = Callable[[ModelSpec], Iterator[str]]
"""What a runner can't do of a spec, in order."""


def unsupported_parts(spec: ModelSpec) -> Iterator[str]:
    """What no runner computes yet: stacks beside the main one, and kinds of layers."""
    if spec.encoder is not None:
        yield "it has an encoder beside its decoder"
    if spec.towers:
        yield "it has towers of other modalities"
    if spec.branches:
        yield f"it has the branch {spec.branches[0][0]!r} above its layers"
    for block in dict.fromkeys(spec.blocks):
        where = f"layer {spec.blocks.index(block)}"
        yield from (f"{where} {what}" for what in _unsupported(block))


def _unsupported(block: Block) -> Iterator[str]:
    if block.cross is not None:
        yield "has cross-attention"


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
