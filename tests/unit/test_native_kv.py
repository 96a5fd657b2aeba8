"""The KV cache in codes of 8 and 4 bits: what it takes, what it holds, and that no way of batching counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from native_support import HERE, divergence, random_weights, tiny_spec
from pentad.errors import Incompatible
from pentad.execution.engine import Engine
from pentad.execution.native.kv_format import code_row, kv_element_bytes
from pentad.execution.native.library import open_library
from pentad.execution.native.runner import NativeRunner
from pentad.execution.request import TokenRequest
from pentad.execution.scheduling import BatchScheduler, EngineLimits
from pentad.execution.spec import ModelSpec, Rope
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.types import Sampling
from ragged_batches import ragged, whole
from torch_generation import PreemptAllOnce

pytestmark = [
    pytest.mark.skipif(not HERE, reason="no native kernels are built"),
    pytest.mark.row("phase-kv-quant", "mechanism", claims=(3,)),
]

SIZES = {
    "vocab_size": 131,
    "width": 96,
    "heads": 6,
    "kv_heads": 2,
    "head_dim": 32,
    "ffn_width": 160,
    "context_length": 256,
}
SPEC = tiny_spec(**SIZES)
SPEC = SPEC.with_attention(positions=Rope(dim=32, pairing="interleaved"), qkv_bias=True)
WEIGHTS = random_weights(SPEC, "Q8_0")
TOKENS = np.random.default_rng(9).integers(0, SPEC.vocab_size, 61).tolist()
ROW_BY_ROW = [name for name in HERE if name != "amx"]
"""Sets whose numbers for a token do not depend on how its prompt is cut (test_native_runner.py)."""


def load(name: str, spec: ModelSpec = SPEC, **options: Any) -> NativeRunner:
    settings = {"num_blocks": 32, "threads": 1, "kernels": name, "kv_dtype": "int8"}
    return NativeRunner.load(spec, options.pop("weights", WEIGHTS), **(settings | options))


def forms(names: Sequence[str]) -> list[tuple[str, str]]:
    """Codes of 8 bits on each set, of 4 on the fastest and on the portable one."""
    return [
        *((name, "int8") for name in names),
        *((name, "int4") for name in dict.fromkeys((names[0], names[-1]))),
    ]


@pytest.fixture(params=forms(HERE))
def runner(request: pytest.FixtureRequest) -> Iterator[NativeRunner]:
    loaded = load(request.param[0], kv_dtype=request.param[1])
    yield loaded
    loaded.close()


@pytest.fixture(params=forms(ROW_BY_ROW))
def exact(request: pytest.FixtureRequest) -> Iterator[NativeRunner]:
    loaded = load(request.param[0], kv_dtype=request.param[1])
    yield loaded
    loaded.close()


def in_steps(
    runner: NativeRunner, tokens: list[int], blocks: list[int], sizes: tuple[int, ...]
) -> np.ndarray:
    """Logits of all tokens, computed in chunks whose sizes are taken in turn."""
    parts, at = [], 0
    while at < len(tokens):
        size = sizes[len(parts) % len(sizes)]
        parts.append(runner.logits(ragged([(tokens[at : at + size], at, blocks)])))
        at += size
    return np.concatenate(parts)


@pytest.mark.parametrize("head_dim", [32, 64, 96, 128])
def test_a_block_takes_a_byte_per_number_and_two_bytes_per_token_and_head(head_dim: int) -> None:
    spec = SPEC.with_attention(head_dim=head_dim, positions=Rope(dim=head_dim))
    weights = random_weights(spec, "Q8_0")
    runner = load("portable", spec, weights=weights)
    rows = 2 * spec.layers * spec.kv_heads * 16
    assert runner.block_bytes == rows * (head_dim + 2)
    assert runner.form.kv_bytes(spec, 16) == runner.block_bytes
    element_bytes = NativeRunner.kv_element_bytes(spec, kv_dtype="int8")
    assert spec.kv_bytes_per_token(element_bytes) * 16 == runner.block_bytes
    budget = 5 * runner.block_bytes
    for kv_bytes, blocks in ((budget - 1, 4), (budget, 5), (budget + 1, 5)):
        assert (
            load("portable", spec, weights=weights, num_blocks=None, kv_bytes=kv_bytes).num_blocks == blocks
        )


def test_bfloat16_stays_what_auto_means() -> None:
    assert load("portable", kv_dtype="auto").block_bytes == load("portable", kv_dtype="bfloat16").block_bytes
    assert kv_element_bytes(SPEC, "auto") == 2
    with pytest.raises(
        Incompatible, match="cannot keep keys and values in 'int3'; set kv_dtype to one of auto, "
    ):
        load("portable", kv_dtype="int3")


def bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def reference_codes(row: np.ndarray) -> tuple[np.ndarray, float]:
    """round(x / step), step = max |x| / 127 in bfloat16, in float32 as the kernels compute it."""
    step = bfloat16(np.abs(row).max(keepdims=True) / np.float32(127))[0]
    inverse = np.float32(1) / step if step > 0 else np.float32(0)
    return np.clip(np.rint(row * inverse), -127, 127).astype(np.int8), float(step)


@pytest.mark.parametrize("name", HERE)
def test_codes_are_those_of_the_reference(name: str) -> None:
    library, rng = open_library(name), np.random.default_rng(3)
    rows = [
        *(rng.standard_normal((40, 64)) * np.exp(rng.uniform(-20, 20, (40, 1)))),
        *(rng.standard_normal((10, 96)) * np.where(rng.random((10, 96)) < 0.03, 200, 1)),
        np.zeros(32),
        np.full(32, -3.5),
        np.eye(32)[5] * 1e-30,
    ]
    for row in np.array(rows, object):
        values = np.asarray(row, np.float32)
        codes, step = code_row(library, values)
        expected, expected_step = reference_codes(values)
        assert step == expected_step
        np.testing.assert_array_equal(codes, expected)
        assert np.abs(codes * step - values).max() <= 0.51 * step


def hadamard(size: int) -> np.ndarray:
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(size)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", HERE)
def test_a_block_holds_turned_keys_and_values_to_half_a_step(name: str, bias: bool) -> None:
    spec = tiny_spec(layers=1, **SIZES).with_attention(positions=SPEC.rope, qkv_bias=bias)
    weights = random_weights(spec, "Q8_0")
    plain, coded = (load(name, spec, weights=weights, kv_dtype=kind) for kind in ("bfloat16", "int8"))
    for runner in (plain, coded):
        runner.logits(ragged([(TOKENS, 0, [7, 3, 9, 4])]))
    for place, block in enumerate([7, 3, 9]):
        for head in range(2):
            wanted, found = (
                r.cached_block(layer=0, head=head, block=block, place=place) for r in (plain, coded)
            )
            turned = wanted.keys @ hadamard(32)
            for exact, held in ((turned, found.keys), (wanted.values, found.values)):
                steps = np.abs(exact).max(axis=1, keepdims=True) / 127
                assert np.abs(held - exact).max() > 0
                # Half a step, both roundings to bfloat16, and a centre that makes the codes' range larger.
                assert (np.abs(held - exact) < 1.2 * steps + 2**-7 * np.abs(exact).max()).all()
                assert np.sqrt(np.square(held - exact).mean()) < 0.01 * np.sqrt(np.square(exact).mean())


def test_a_large_bias_of_keys_costs_no_precision() -> None:
    tensors = dict(WEIGHTS.tensors)
    for i in range(SPEC.layers):
        stored = tensors[f"layers.{i}.k.bias"]
        values = stored.data.view(np.float32).copy()
        values[30:32] = 90  # the slowest pair of the first head, as interleaved positions order it
        tensors[f"layers.{i}.k.bias"] = dataclasses.replace(stored, data=values.view(np.uint8))
    weights = dataclasses.replace(WEIGHTS, tensors=tensors)
    plain, coded = (load(HERE[-1], weights=weights, kv_dtype=kind) for kind in ("bfloat16", "int8"))
    expected, found = (runner.logits(whole(TOKENS)) for runner in (plain, coded))
    assert divergence(expected, found).mean() < 0.002


def test_the_logits_are_those_of_bfloat16_but_for_the_rounding(runner: NativeRunner) -> None:
    plain, eight = (load(runner.kernels, kv_dtype=kind) for kind in ("bfloat16", "int8"))
    expected, found = plain.logits(whole(TOKENS)), runner.logits(whole(TOKENS))
    assert (expected != found).any()
    bound = 0.001 if runner.block_bytes == eight.block_bytes else 0.03
    assert divergence(expected, found).mean() < bound


def test_chunks_of_any_size_give_the_logits_of_the_whole(exact: NativeRunner) -> None:
    expected = exact.logits(whole(TOKENS))
    for sizes in ((1,), (7,), (16,), (33,), (1, 30, 2)):
        np.testing.assert_array_equal(in_steps(exact, TOKENS, [8, 19, 10, 11], sizes), expected)


def test_a_generated_token_gets_the_same_logits_in_every_company(runner: NativeRunner) -> None:
    contexts = (1, 15, 16, 17, 40, 31, 3)
    parts = []
    for i, length in enumerate(contexts):
        blocks = [4 * i, 4 * i + 1, 4 * i + 2]
        runner.logits(ragged([(TOKENS[:length], 0, blocks)]))
        parts.append((TOKENS[length : length + 1], length, blocks))
    together = runner.logits(ragged(parts))
    alone = [runner.logits(ragged([part])) for part in parts]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("name", HERE)
def test_two_threads_compute_what_one_does(name: str) -> None:
    one, two = load(name), load(name, threads=2)
    batch = ragged([(TOKENS, 0, [0, 1, 2, 3]), (TOKENS[:5], 0, [4]), (TOKENS[7:30], 0, [5, 6])])
    np.testing.assert_array_equal(one.logits(batch), two.logits(batch))


def test_a_window_begins_in_the_middle_of_a_block() -> None:
    spec = SPEC.with_attention(window=20)
    for name in HERE:
        plain, coded = (load(name, spec, kv_dtype=kind) for kind in ("bfloat16", "int8"))
        assert divergence(plain.logits(whole(TOKENS)), coded.logits(whole(TOKENS))).mean() < 0.001
        changed = coded.logits(whole([1, *TOKENS[1:]]))
        np.testing.assert_array_equal(coded.logits(whole(TOKENS))[40:], changed[40:])


def test_a_found_prefix_serves_as_one_computed_again(runner: NativeRunner) -> None:
    runner.logits(ragged([(TOKENS[:40], 0, [0, 1, 2])]))
    first = runner.logits(ragged([(TOKENS[40:41], 40, [0, 1, 2])]))
    runner.logits(ragged([(TOKENS[32:40], 32, [0, 1, 21])]))  # another sequence on the first two blocks
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[40:41], 40, [0, 1, 2])])), first)
    runner.logits(ragged([(TOKENS[:40], 0, [30, 4, 17])]))  # preempted and computed again elsewhere
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[40:41], 40, [30, 4, 17])])), first)


def test_a_copied_block_serves_as_the_original_and_is_its_own(runner: NativeRunner) -> None:
    runner.logits(ragged([(TOKENS[:40], 0, [0, 1, 2])]))
    expected = runner.logits(ragged([(TOKENS[40:41], 40, [0, 1, 2])]))
    runner.copy_block(1, 9)
    runner.copy_block(2, 10)
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[40:41], 40, [0, 9, 10])])), expected)
    runner.logits(ragged([([1, 2, 3], 37, [0, 1, 10])]))
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[40:41], 40, [0, 1, 2])])), expected)


def test_a_block_that_was_copied_out_and_in_serves_as_the_original(runner: NativeRunner) -> None:
    runner.logits(ragged([(TOKENS[:40], 0, [0, 1, 2])]))
    expected = runner.logits(ragged([(TOKENS[40:41], 40, [0, 1, 2])]))
    saved = [bytes(runner.read_block(block)) for block in (0, 1, 2)]
    runner.logits(ragged([([7] * 48, 0, [0, 1, 2])]))
    for block, data in zip((5, 9, 10), saved, strict=True):
        runner.write_block(block, memoryview(data))
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[40:41], 40, [5, 9, 10])])), expected)
    with pytest.raises(ValueError, match="block 32 is not one of 32"):
        runner.read_block(32)


def test_a_branch_of_a_tree_sees_its_own_path_and_is_kept_by_copying_slots(runner: NativeRunner) -> None:
    """A tree of 20 nodes behind 29 tokens: the odd nodes are the text, the even ones a wrong branch."""
    runner.logits(ragged([(TOKENS[:29], 0, [0, 1])]))
    singles = [runner.logits(ragged([(TOKENS[at : at + 1], at, [0, 1, 2, 3])])) for at in range(29, 40)]
    runner.logits(ragged([(TOKENS[:29], 0, [10, 11])]))
    nodes = [t for i in range(10) for t in (5, TOKENS[30 + i])]
    path = [sum(1 << 2 * j + 1 for j in range(i)) for i in range(11)]
    masks = [0, *(m for i in range(10) for m in (path[i] | 1 << 2 * i, path[i + 1]))]
    positions = [29, *(p for i in range(10) for p in (30 + i, 30 + i))]
    batch = ragged([([TOKENS[29], *nodes], 29, [10, 11, 12, 13])])
    tree = dataclasses.replace(
        batch,
        positions=np.array(positions, np.int32),
        tree_slots=np.array([20], np.int32),
        tree_masks=np.array(masks, np.uint64),
        drafted=np.array([20], np.int32),
    )
    found = runner.logits(tree)
    np.testing.assert_array_equal(found[[0, *range(2, 21, 2)]], np.concatenate(singles))

    def slot(index: int) -> int:
        return [10, 11, 12, 13][index // 16] * 16 + index % 16

    runner.copy_slots([(slot(30 + 2 * i + 1), slot(30 + i)) for i in range(10)])
    expected = runner.logits(ragged([(TOKENS[40:41], 40, [0, 1, 2])]))
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[40:41], 40, [10, 11, 12])])), expected)


def requests(count: int) -> list[TokenRequest]:
    rng = np.random.default_rng(4)
    shared = rng.integers(0, SPEC.vocab_size, 20).tolist()
    return [
        TokenRequest(
            id=str(i),
            prompt=tuple(shared + rng.integers(0, SPEC.vocab_size, int(rng.integers(2, 30))).tolist()),
            sampling=Sampling(temperature=0.8 if i % 3 == 0 else 0),
            max_tokens=12,
            seed=i,
        )
        for i in range(count)
    ]


def generate(
    runner: NativeRunner, scheduler: BatchScheduler | None = None, **limits: int
) -> tuple[dict[str, list[int]], dict[str, float]]:
    settings = {"max_batch_tokens": 64, "max_sequences": 8}
    engine = Engine(
        runner, scheduler or Fcfs(), limits=EngineLimits(**(settings | limits)), check_invariants=True
    )
    engine.add(*requests(10))
    tokens: dict[str, list[int]] = {str(i): [] for i in range(10)}
    while engine.has_work:
        for output in engine.step():
            assert output.error is None
            tokens[output.id] += [drawn.token for drawn in output.drawn]
    return tokens, engine.stats()


def test_the_engine_draws_the_same_tokens_however_it_batches(exact: NativeRunner) -> None:
    expected, stats = generate(exact)
    assert all(len(tokens) == 12 for tokens in expected.values())
    assert stats["prefix_hit_tokens_total"] > 0
    assert generate(exact, max_batch_tokens=9, max_sequences=3)[0] == expected
    assert generate(exact, max_sequences=1)[0] == expected
    again, counted = generate(exact, PreemptAllOnce(Fcfs(), after_tokens=3), max_sequences=10)
    assert again == expected
    assert counted["preemptions_total"] > 0
