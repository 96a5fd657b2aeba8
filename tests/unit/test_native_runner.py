"""The native runner's own promises: what it refuses, what it holds, and that no way of batching counts."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from native_support import HERE, random_weights, tiny_spec
from pentad.errors import BackendFailed, BadModelFile, Incompatible, Infeasible, InvalidRequest
from pentad.execution.batch import RaggedBatch, SampleRow
from pentad.execution.engine import Engine
from pentad.execution.native.packed import PackedCache
from pentad.execution.native.runner import NativeRunner, default_threads
from pentad.execution.request import TokenRequest
from pentad.execution.sampling import draw
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import ModelSpec, Rope
from pentad.execution.weights import StoredTensor
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.types import Sampling
from ragged_batches import ragged, whole

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

SPEC = tiny_spec(
    vocab_size=131, width=96, heads=6, kv_heads=2, head_dim=32, ffn_width=160, context_length=256
)
SPEC = SPEC.with_attention(positions=Rope(dim=32, pairing="interleaved"), qkv_bias=True)
WEIGHTS = random_weights(SPEC, "Q8_0")
ROW_BY_ROW = [name for name in HERE if name != "amx"]
"""Sets whose numbers for a token do not depend on how its prompt is cut. AMX multiplies chunks of 32 tokens
and more in bfloat16."""
TOKENS = np.random.default_rng(9).integers(0, SPEC.vocab_size, 61).tolist()
GREEDY = SampleRow(temperature=0)


def load(name: str, spec: ModelSpec = SPEC, **options: Any) -> NativeRunner:
    settings = {"num_blocks": 32, "threads": 1, "kernels": name}
    return NativeRunner.load(spec, options.pop("weights", WEIGHTS), **(settings | options))


@pytest.fixture(params=HERE)
def runner(request: pytest.FixtureRequest) -> Iterator[NativeRunner]:
    runner = load(request.param)
    yield runner
    runner.close()


@pytest.fixture(params=ROW_BY_ROW)
def exact(request: pytest.FixtureRequest) -> Iterator[NativeRunner]:
    runner = load(request.param)
    yield runner
    runner.close()


def test_blocks_are_what_the_cache_bytes_hold() -> None:
    block_bytes = SPEC.kv_bytes_per_token(NativeRunner.kv_element_bytes(SPEC)) * 16
    runner = load("portable", num_blocks=None, kv_bytes=5 * block_bytes + 7)
    assert (runner.num_blocks, runner.block_size, runner.block_bytes) == (5, 16, block_bytes)
    assert load("portable", num_blocks=None).num_blocks == SPEC.context_length // 16


def test_packed_weights_take_the_bytes_of_their_codes_and_scales() -> None:
    cells = sum(int(np.prod(t.shape)) for t in WEIGHTS.tensors.values() if len(t.shape) == 2)
    padding = 2 * (-SPEC.vocab_size % 16) * SPEC.width  # embedding and head, in groups of 16 rows
    assert load("portable").weight_bytes == (cells + padding) * 34 // 32


def test_a_step_draws_the_most_probable_token_of_each_wanted_row(runner: NativeRunner) -> None:
    batch = ragged([(TOKENS, 0, [0, 1, 2, 3])], rows=[0, 17, 60])
    expected = runner.logits(batch).argmax(-1).tolist()
    assert [drawn.token for drawn in runner.step(batch, [GREEDY] * 3)] == expected


def test_rows_of_every_kind_in_one_step_draw_what_the_reference_draws(runner: NativeRunner) -> None:
    batch = ragged([(TOKENS, 0, [0, 1, 2, 3])], rows=list(range(20, 32)))
    logits = runner.logits(batch)
    mask = np.full(5, 0x5555_5555, np.uint32)
    kinds = [
        GREEDY,
        SampleRow(seed=1, position=3),
        SampleRow(temperature=0, logprobs=3),
        SampleRow(temperature=0.7, top_p=0.8, seed=5),
        GREEDY,
        SampleRow(top_k=4, seed=2, logprobs=0),
        SampleRow(temperature=0, mask=mask),
        SampleRow(mask=mask, seed=9, min_p=0.1),
        SampleRow(temperature=0, repetition_penalty=1.3, seen=set(TOKENS)),
        SampleRow(seed=4, frequency_penalty=0.4, presence_penalty=0.2, output_counts={3: 2, 7: 1}),
        SampleRow(temperature=0, logit_bias={11: 50.0}),
        SampleRow(temperature=0, banned=tuple(range(100))),
    ]
    drawn = runner.step(batch, kinds)
    expected = [draw(row, kind) for row, kind in zip(logits, kinds, strict=True)]
    assert [d.token for d in drawn] == [d.token for d in expected]
    assert [d.logprob for d in drawn] == pytest.approx([d.logprob for d in expected])
    assert drawn[2].alternatives == tuple(
        (token, pytest.approx(value)) for token, value in expected[2].alternatives
    )
    assert drawn[10].token == 11


def test_a_step_without_wanted_rows_still_writes_its_keys(runner: NativeRunner) -> None:
    runner.step(ragged([(TOKENS[:40], 0, [5, 6, 7])], rows=[]), [])
    got = runner.logits(ragged([(TOKENS[40:41], 40, [5, 6, 7])]))
    runner.logits(ragged([(TOKENS[:40], 0, [0, 1, 2])]))
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[40:41], 40, [0, 1, 2])])), got)


def test_scattered_blocks_give_the_logits_of_consecutive_ones(runner: NativeRunner) -> None:
    consecutive = runner.logits(whole(TOKENS))
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS, 0, [30, 4, 17, 9])])), consecutive)


def test_chunks_of_any_size_give_the_logits_of_the_whole(exact: NativeRunner) -> None:
    expected = exact.logits(whole(TOKENS))
    for size in (1, 7, 16, 33):
        parts = [
            exact.logits(ragged([(TOKENS[at : at + size], at, [8, 9, 10, 11])]))
            for at in range(0, len(TOKENS), size)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), expected)


def mixed_batch() -> tuple[RaggedBatch, list[tuple[list[int], int, list[int]]]]:
    """Chunks, single tokens and a long context in one step."""
    parts = [
        (TOKENS[40:61], 40, [0, 1, 2, 3]),
        (TOKENS[:1], 0, [4]),
        (TOKENS[5:9], 0, [5]),
        (TOKENS[16:17], 16, [6, 7]),
        (TOKENS[:17], 0, [8, 9]),
    ]
    return ragged(parts), parts


def fill_caches(runner: NativeRunner) -> None:
    runner.logits(ragged([(TOKENS[:40], 0, [0, 1, 2])]))
    runner.logits(ragged([(TOKENS[:16], 0, [6])]))


def test_a_batch_gives_each_sequence_the_logits_it_gets_alone(runner: NativeRunner) -> None:
    fill_caches(runner)
    batch, parts = mixed_batch()
    together = runner.logits(batch)
    fill_caches(runner)
    alone = [runner.logits(ragged([part])) for part in parts]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("count", [2, 3, 8, 9, 13, 16, 17, 30])
def test_a_generated_token_gets_the_same_logits_in_every_company(runner: NativeRunner, count: int) -> None:
    lengths = range(1, count + 1)
    for block, length in enumerate(lengths):
        runner.logits(ragged([(TOKENS[: length % 16], 0, [block])]))
    parts = [
        (TOKENS[length % 16 : length % 16 + 1], length % 16, [block]) for block, length in enumerate(lengths)
    ]
    together = runner.logits(ragged(parts))
    alone = [runner.logits(ragged([part])) for part in parts]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", HERE)
def test_sequences_behind_shared_blocks_get_the_logits_they_get_alone(
    name: str, kv_dtype: str, threads: int
) -> None:
    """Seven behind twenty blocks, two of them behind two more, one behind none, and a prompt beside them."""
    spec = dataclasses.replace(SPEC, context_length=512)
    runner = load(name, spec, num_blocks=64, kv_dtype=kv_dtype, threads=threads)
    text = np.random.default_rng(3).integers(0, SPEC.vocab_size, 400).tolist()
    parts, shared, free = [], list(range(20)), 22
    runner.logits(ragged([(text[:352], 0, [*shared, 20, 21])]))
    for number in range(7):
        blocks = [*shared, 20, 21] if number in (2, 5) else shared
        start, end = 16 * len(blocks), 16 * len(blocks) + 1 + 3 * number
        blocks = [*blocks, free, free + 1]
        free += 2
        runner.logits(ragged([(text[start:end], start, blocks)], rows=[]))
        parts.append((text[end : end + 1], end, blocks))
    runner.logits(ragged([(text[9:290], 0, list(range(free, free + 18)))], rows=[]))
    parts.insert(3, (text[290:291], 281, list(range(free, free + 18))))
    parts.append((text[:21], 0, [free + 18, free + 19]))
    together = runner.logits(ragged(parts))
    alone = [runner.logits(ragged([part])) for part in parts]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("name", HERE)
def test_two_threads_compute_what_one_does(name: str) -> None:
    one, two = load(name), load(name, threads=2)
    batch, _ = mixed_batch()
    for runner in (one, two):
        fill_caches(runner)
    np.testing.assert_array_equal(one.logits(batch), two.logits(batch))
    rows = [SampleRow(seed=i) if i % 3 else GREEDY for i in range(len(batch.logit_rows))]
    assert one.step(batch, rows) == two.step(batch, rows)
    one.close()
    two.close()


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="one core cannot be shared out"
)
def test_threads_part_within_the_cores_that_they_may_use() -> None:
    """They leave a core that they share, if there is another one; what they may use stays as it was."""
    before = os.listdir("/proc/self/task")
    runner = load(HERE[-1], threads=2)
    members = [int(task) for task in os.listdir("/proc/self/task") if task not in before]
    team = [threading.get_native_id(), *members]
    free = os.sched_getaffinity(0)
    batch = whole(TOKENS, rows=[len(TOKENS) - 1])
    alone = load(HERE[-1]).logits(batch)
    try:
        for cores in ({min(free)}, free):
            for task in team:
                os.sched_setaffinity(task, cores)
            for _ in range(50):
                np.testing.assert_array_equal(runner.logits(batch), alone)
            assert [os.sched_getaffinity(task) for task in team] == [cores] * len(team)
    finally:
        os.sched_setaffinity(0, free)
    assert len(members) >= 1


def test_a_copied_block_serves_as_the_original_and_is_its_own(runner: NativeRunner) -> None:
    runner.logits(ragged([(TOKENS[:40], 0, [0, 1, 2])]))
    expected = runner.logits(ragged([(TOKENS[40:41], 40, [0, 1, 2])]))
    runner.copy_block(1, 9)
    runner.copy_block(2, 10)
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[40:41], 40, [0, 9, 10])])), expected)
    runner.logits(ragged([([1, 2, 3], 37, [0, 1, 10])]))
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[40:41], 40, [0, 1, 2])])), expected)
    with pytest.raises(ValueError, match="block 32 is not one of 32"):
        runner.copy_block(0, 32)


def test_stale_blocks_of_another_sequence_are_never_seen(runner: NativeRunner) -> None:
    expected = runner.logits(ragged([(TOKENS[:20], 0, [4, 5])]))
    runner.logits(ragged([([7] * 64, 0, [4, 5, 6, 7])]))
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[:20], 0, [4, 5])])), expected)


def test_a_step_may_be_larger_than_any_before(runner: NativeRunner) -> None:
    small = runner.logits(ragged([(TOKENS[:20], 0, [4, 5])]))
    prompts = [(TOKENS, 0, [6 + 4 * i, 7 + 4 * i, 8 + 4 * i, 9 + 4 * i]) for i in range(6)]
    large = runner.logits(ragged(prompts))
    np.testing.assert_array_equal(large[:61], large[-61:])
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[:20], 0, [4, 5])])), small)


def test_a_window_forgets_what_lies_before_it() -> None:
    spec = SPEC.with_attention(window=20)
    runner = load(HERE[0], spec)
    changed = [1, *TOKENS[1:]]
    first, second = (runner.logits(whole(tokens)) for tokens in (TOKENS, changed))
    assert np.abs(first[5] - second[5]).max() > 0.01
    # Two layers of 20 slots: the 41st token has no path to the first.
    np.testing.assert_array_equal(first[40:], second[40:])


BROKEN = {
    "token_ids": ("token id", [3, -1, 5]),
    "positions": ("position", [0, 1, 4000]),
    "slots": ("slot", [0, 1, 16 * 32]),
    "context_lens": ("block table", [17]),
    "block_tables": ("block table", [[-1]]),
    "logit_rows": ("logit row", [3]),
}


@pytest.mark.parametrize("part", BROKEN)
def test_an_impossible_batch_is_refused_and_harms_nothing(part: str, runner: NativeRunner) -> None:
    batch = ragged([(TOKENS[:3], 0, [0])])
    expected = runner.logits(batch)
    message, values = BROKEN[part]
    broken = dataclasses.replace(batch, **{part: np.array(values, np.int32)})
    with pytest.raises(ValueError, match=f"the batch has an impossible {message}"):
        runner.logits(broken)
    np.testing.assert_array_equal(runner.logits(batch), expected)


@pytest.mark.parametrize("name", ["layers.1.k", "final_norm", "embed", "layers.0.q.bias"])
def test_a_missing_tensor_is_named(name: str) -> None:
    fewer = {key: value for key, value in WEIGHTS.tensors.items() if key != name}
    with pytest.raises(BadModelFile, match=f"'tiny' lacks the tensor '{name}' of shape"):
        load("portable", weights=dataclasses.replace(WEIGHTS, tensors=fewer))


def test_a_misshapen_or_surplus_tensor_is_named() -> None:
    tensors = dict(WEIGHTS.tensors)
    tensors["layers.0.o"] = tensors["layers.0.q"]
    with pytest.raises(BadModelFile, match=r"'layers.0.o' has shape \(192, 96\), its spec says \(96, 192\)"):
        load("portable", weights=dataclasses.replace(WEIGHTS, tensors=tensors))
    more = {**WEIGHTS.tensors, "layers.0.q_norm": WEIGHTS.tensors["final_norm"]}
    with pytest.raises(BadModelFile, match=r"its spec does not use: layers\.0\.q_norm"):
        load("portable", weights=dataclasses.replace(WEIGHTS, tensors=more))


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"dtype": "float32"}, Incompatible, "not in 'float32'; leave weight_dtype at auto"),
        ({"threads": 0}, InvalidRequest, "threads is 0, must be 1 to 1024"),
        ({"block_size": 32}, InvalidRequest, "block_size is 32; the native kernels take 16"),
        ({"kernels": "neon9"}, Exception, "unknown kernels 'neon9'; known: auto"),
        ({"num_blocks": None, "kv_bytes": 100}, Infeasible, "100 bytes holds no block of 16 tokens"),
    ],
)
def test_impossible_options_are_refused_by_name(
    option: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load("portable", **option)


def test_logits_that_are_no_numbers_are_the_fault_of_their_row() -> None:
    values = np.full(SPEC.width, np.nan, np.float32)
    norm = StoredTensor(name="final_norm", format="F32", shape=values.shape, data=values.view(np.uint8))
    broken = dataclasses.replace(WEIGHTS, tensors={**WEIGHTS.tensors, "final_norm": norm})
    runner = load(HERE[0], weights=broken)
    for row in (GREEDY, SampleRow(seed=1)):
        (drawn,) = runner.step(ragged([(TOKENS[:3], 0, [0])], rows=[2]), [row])
        assert (drawn.token, drawn.fault) == (-1, "not_finite")


def test_a_closed_runner_is_not_used_and_closing_twice_is_harmless() -> None:
    runner = load("portable")
    runner.close()
    runner.close()
    with pytest.raises(AssertionError, match="the runner is closed"):
        runner.logits(whole(TOKENS))


def test_every_core_of_this_process_gets_a_thread_at_most() -> None:
    import os

    assert 1 <= default_threads() <= (os.cpu_count() or 1)


@pytest.mark.row("mm-mmap", "mechanism")
def test_the_second_load_maps_packed_weights_and_computes_the_same(tmp_path: pathlib.Path) -> None:
    cache = PackedCache(folder=tmp_path, identity="weights of this test")
    plain, first, second = load("portable"), load("portable", cache=cache), load(HERE[0], cache=cache)
    assert (plain.weights_found, first.weights_found, second.weights_found) == (False, False, True)
    expected = plain.logits(whole(TOKENS))
    np.testing.assert_array_equal(first.logits(whole(TOKENS)), expected)
    np.testing.assert_array_equal(second.logits(whole(TOKENS)), load(HERE[0]).logits(whole(TOKENS)))
    (path,) = tmp_path.iterdir()
    assert plain.weight_bytes <= path.stat().st_size <= plain.weight_bytes + 4096 + 64 * 17


def test_other_geometry_is_packed_anew(tmp_path: pathlib.Path) -> None:
    cache = PackedCache(folder=tmp_path, identity="same")
    load("portable", cache=cache)
    halves = SPEC.with_attention(positions=Rope(dim=32))
    assert not load("portable", halves, cache=cache).weights_found


def requests(count: int) -> list[TokenRequest]:
    rng = np.random.default_rng(4)
    return [
        TokenRequest(
            id=str(i),
            prompt=tuple(rng.integers(0, SPEC.vocab_size, int(rng.integers(2, 50))).tolist()),
            sampling=Sampling(temperature=0.8 if i % 3 == 0 else 0, logprobs=2 if i % 4 == 0 else None),
            max_tokens=12,
            seed=i,
        )
        for i in range(count)
    ]


def generate(runner: NativeRunner, **limits: int) -> dict[str, list[int]]:
    settings = {"max_batch_tokens": 64, "max_sequences": 8}
    engine = Engine(runner, Fcfs(), limits=EngineLimits(**(settings | limits)), check_invariants=True)
    engine.add(*requests(10))
    tokens: dict[str, list[int]] = {str(i): [] for i in range(10)}
    while engine.has_work:
        for output in engine.step():
            assert output.error is None
            tokens[output.id] += [drawn.token for drawn in output.drawn]
    return tokens


def test_the_engine_draws_the_same_tokens_however_it_batches(exact: NativeRunner) -> None:
    expected = generate(exact)
    assert all(len(tokens) == 12 for tokens in expected.values())
    assert generate(exact, max_batch_tokens=9, max_sequences=3) == expected
    assert generate(exact, max_sequences=1) == expected
    small = load(exact.kernels, num_blocks=9)  # preempts for want of blocks
    assert generate(small) == expected


def test_cancelled_sequences_leave_no_trace(runner: NativeRunner) -> None:
    engine = Engine(
        runner,
        Fcfs(),
        limits=EngineLimits(max_batch_tokens=64, max_sequences=8),
        check_invariants=True,
    )
    engine.add(*requests(10))
    for _ in range(4):
        engine.step()
    for i in range(0, 10, 2):
        assert engine.cancel(str(i))
    finishes = {}
    while engine.has_work:
        finishes |= {o.id: o.finish for o in engine.step() if o.finish}
    assert [finishes[str(i)] for i in range(10)] == ["cancelled", "length"] * 5
    assert engine.stats()["requests_cancelled_total"] == 5


def test_a_step_that_fails_ends_its_requests_and_the_engine_goes_on() -> None:
    class Failing(NativeRunner):
        def step(self, batch: RaggedBatch, rows: Any) -> Any:
            wrong = dataclasses.replace(batch, token_ids=np.full_like(batch.token_ids, -5))
            return super().step(wrong if self.kernels == "broken" else batch, rows)

    failing = Failing.load(SPEC, WEIGHTS, num_blocks=32, threads=1)
    engine = Engine(failing, Fcfs(), limits=EngineLimits())
    first, second = requests(2)
    failing.kernels = "broken"
    engine.add(first)
    (output,) = engine.step()
    assert isinstance(output.error, BackendFailed)
    failing.kernels = "whole"
    engine.add(second)
    finishes = []
    while engine.has_work:
        finishes += [o.finish for o in engine.step() if o.finish]
    assert finishes == ["length"]
