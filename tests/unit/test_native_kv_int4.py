"""Keys and values in codes of 4 bits: what a block takes, and what it holds on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from native_support import HERE, random_weights, tiny_spec
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec import ModelSpec, Rope
from ragged_batches import ragged

pytestmark = [
    pytest.mark.skipif(not HERE, reason="no native kernels are built"),
    pytest.mark.row("phase-kv-quant", "mechanism", claims=(3,)),
]

TOKENS = np.random.default_rng(9).integers(0, 131, 61).tolist()
BYTES = {"int8": (1.0, 1.0), "int8-int4": (1.0, 0.5), "int4": (0.5, 0.5)}


def spec_of(head_dim: int = 64) -> ModelSpec:
    sizes = {
        "vocab_size": 131,
        "width": 96,
        "heads": 6,
        "kv_heads": 2,
        "ffn_width": 160,
        "context_length": 256,
    }
    return tiny_spec(layers=1, **sizes, head_dim=head_dim).with_attention(
        positions=Rope(dim=head_dim), qkv_bias=False
    )


def load(name: str, spec: ModelSpec, kind: str) -> NativeRunner:
    weights = random_weights(spec, "Q8_0")
    return NativeRunner.load(spec, weights, num_blocks=8, threads=1, kernels=name, kv_dtype=kind)


def hadamard(size: int) -> np.ndarray:
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(size)


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("head_dim", [32, 64, 96, 128])
def test_a_block_takes_its_codes_and_steps_and_nothing_else(head_dim: int, kind: str) -> None:
    spec = spec_of(head_dim)
    runner = load("portable", spec, kind)
    # One step of two bytes per token, or a step and a least number per 32 numbers.
    parts = (each * head_dim + (2 if each == 1 else 4 * head_dim / 32) for each in BYTES[kind])
    assert runner.block_bytes == sum(parts) * spec.layers * spec.kv_heads * 16
    assert runner.form.kv_bytes(spec, 16) == runner.block_bytes
    assert (
        spec.kv_bytes_per_token(NativeRunner.kv_element_bytes(spec, kv_dtype=kind)) * 16 == runner.block_bytes
    )
    assert len(bytes(runner.read_block(0))) == runner.block_bytes


@pytest.mark.parametrize("name", HERE)
def test_a_block_holds_turned_keys_and_values_to_half_a_step(name: str) -> None:
    spec = spec_of()
    plain, coded, mixed = (load(name, spec, kind) for kind in ("bfloat16", "int4", "int8-int4"))
    for runner in (plain, coded, mixed):
        runner.logits(ragged([(TOKENS, 0, [7, 3, 5, 4])]))
    for place, block in enumerate([7, 3, 5]):
        for head in range(2):
            wanted, found, half = (
                each.cached_block(layer=0, head=head, block=block, place=place)
                for each in (plain, coded, mixed)
            )
            np.testing.assert_array_equal(half.values, found.values)
            for exact, held in ((wanted.keys @ hadamard(64), found.keys), (wanted.values, found.values)):
                groups = exact.reshape(16, 2, 32)
                steps = (groups.max(axis=2) - groups.min(axis=2)).repeat(32, axis=1) / 15
                assert np.abs(held - exact).max() > 0
                # Half a step, what its rounding to bfloat16 moves the last codes by, and the page's rounding.
                assert (np.abs(held - exact) < 0.6 * steps + 2**-6 * np.abs(exact).max()).all()


def test_sets_keep_the_same_codes() -> None:
    spec = spec_of()
    blocks = []
    for name in HERE:
        if name == "amx":
            continue  # computes prompts in bfloat16
        runner = load(name, spec, "int4")
        runner.logits(ragged([(TOKENS[:16], 0, [2])]))
        blocks.append(runner.cached_block(layer=0, head=1, block=2, place=0).keys)
    for other in blocks[1:]:
        assert np.mean(other != blocks[0]) < 0.01  # sums in another order may move a number over an edge
