"""How much memory the KV cache of an engine gets when nobody says."""

from __future__ import annotations

from pentad.errors import Infeasible
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import ModelSpec
from pentad.types import Decision

AVAILABLE_SHARE = 0.25
"""Of the memory that is available now; the rest stays for weights of other models and their users."""
FULL_CONTEXTS = 2
"""Sequences of the whole context that fit at once, where memory allows."""


def kv_cache_bytes(
    spec: ModelSpec,
    limits: EngineLimits,
    *,
    available_bytes: int,
    element_bytes: float,
    asked_bytes: int | None = None,
    block_size: int = 16,
) -> tuple[int, Decision]:
    """The size of the KV cache in bytes, and the decision that explains it.

    Unasked, it holds `FULL_CONTEXTS` sequences of the model's whole context, and of as much as its encoder
    reads where it has one, but no more tokens
    than `limits` can run and no more than `AVAILABLE_SHARE` of the available memory.

    Args:
        available_bytes: memory of the device that nothing uses now.
        element_bytes: bytes of one cached number.
        asked_bytes: what the user set; taken as it is.

    Raises:
        Infeasible: not even one block of tokens fits.
    """
    token_bytes = spec.kv_bytes_per_token(element_bytes)
    contexts = min(FULL_CONTEXTS, limits.max_sequences)
    wanted = contexts * (spec.context_length + spec.source_length) * token_bytes
    share = int(available_bytes * AVAILABLE_SHARE)
    if asked_bytes is not None:
        chosen, constraint = asked_bytes, "kv_bytes"
    elif wanted <= share:
        chosen, constraint = wanted, None
    else:
        chosen, constraint = share, "available_memory"
    if chosen < block_size * token_bytes:
        raise Infeasible(
            f"{chosen} bytes of KV cache hold less than one block of {block_size} tokens, "
            f"which takes {block_size * token_bytes} bytes for {spec.name!r}",
            hint="raise --kv-bytes or free memory",
            param="kv_bytes",
        )
    candidates = (("asked", asked_bytes), (f"{contexts} contexts", wanted), ("memory share", share))
    return chosen, Decision(
        layer="resource",
        policy="kv-sizing",
        subject="kv_bytes",
        chosen=str(chosen),
        candidates=tuple((name, None if value is None else float(value)) for name, value in candidates),
        constraint=constraint,
    )
