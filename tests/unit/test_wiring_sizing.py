"""The KV cache gets what was asked, what the context wants or what memory allows."""

import pytest

from pentad.errors import Infeasible
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import Rope
from pentad.execution.uniform import uniform_spec
from pentad.resource.sizing import kv_cache_bytes

SPEC = uniform_spec(
    name="toy",
    family="llama",
    vocab_size=32,
    layers=2,
    width=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    ffn_width=32,
    context_length=1024,
    positions=Rope(dim=8),
)
TOKEN_BYTES = SPEC.kv_bytes_per_token(2)


def test_two_contexts_where_memory_allows() -> None:
    size, decision = kv_cache_bytes(SPEC, EngineLimits(), available_bytes=1 << 30, element_bytes=2)
    assert size == 2 * 1024 * TOKEN_BYTES
    assert decision.constraint is None


def test_a_single_sequence_needs_one_context() -> None:
    limits = EngineLimits(max_sequences=1)
    assert kv_cache_bytes(SPEC, limits, available_bytes=1 << 30, element_bytes=2)[0] == 1024 * TOKEN_BYTES


def test_scarce_memory_binds_and_says_so() -> None:
    size, decision = kv_cache_bytes(SPEC, EngineLimits(), available_bytes=100_000, element_bytes=2)
    assert size == 25_000
    assert decision.constraint == "available_memory"


def test_what_was_asked_is_taken() -> None:
    size, decision = kv_cache_bytes(
        SPEC, EngineLimits(), available_bytes=1 << 30, element_bytes=2, asked_bytes=50_000
    )
    assert (size, decision.constraint) == (50_000, "kv_bytes")


def test_less_than_a_block_is_refused_with_the_flag() -> None:
    with pytest.raises(Infeasible, match="--kv-bytes"):
        kv_cache_bytes(SPEC, EngineLimits(), available_bytes=1 << 30, element_bytes=2, asked_bytes=100)
