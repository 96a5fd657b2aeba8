"""How many KV blocks a cache holds."""

from __future__ import annotations

from typing import Final

from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.spec import ModelSpec

_LEAST_BLOCKS: Final = 1 << 15
"""Of a model that keeps nothing of tokens, whose blocks count tokens and take no room."""


def block_count(
    spec: ModelSpec, kv_bytes: int | None, num_blocks: int | None, block_size: int, element_bytes: float
) -> int:
    """Blocks of a cache of `kv_bytes`, or `num_blocks` where given; with neither, one whole context.

    Raises:
        InvalidRequest: blocks of no token.
        Infeasible: not even one block.
    """
    if block_size < 1:
        raise InvalidRequest(f"block_size is {block_size}, must be at least 1", param="block_size")
    block_bytes = spec.kv_bytes_per_token(element_bytes) * block_size
    whole = -(-spec.context_length // block_size) - (-spec.source_length // block_size)
    if num_blocks is None and not block_bytes:
        num_blocks = max(_LEAST_BLOCKS, whole)
    if num_blocks is None:
        num_blocks = whole if kv_bytes is None else kv_bytes // block_bytes
    if num_blocks < 1 + (spec.encoder is not None):
        asked = f"{kv_bytes} bytes" if kv_bytes is not None else f"{num_blocks} blocks"
        raise Infeasible(
            f"a KV cache of {asked} holds no block of {block_size} tokens, which takes {block_bytes} bytes "
            f"in model {spec.name!r}",
            hint="raise kv_bytes",
            param="kv_bytes",
        )
    return num_blocks
