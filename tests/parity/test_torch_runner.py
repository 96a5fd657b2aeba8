"""The runner's own promises: what it refuses, what it holds, and that its fast paths are the plain ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pentad.errors import BadModelFile, Incompatible, Infeasible, InvalidRequest
from pentad.execution.batch import SampleRow
from pentad.execution.spec import Rope
from pentad.execution.torch import probe
from pentad.execution.torch.linear import Activation, Dense, Packed, packing_available
from pentad.execution.torch.runner import TorchRunner
from ragged_batches import ragged
from torch_reference import TINY, ArrayWeights, tiny_arrays


@pytest.fixture
def runner() -> Iterator[TorchRunner]:
    runner = TorchRunner.load(TINY, ArrayWeights(tiny_arrays(TINY)), num_blocks=16, dtype="float32")
    yield runner
    runner.close()


TOKENS = np.random.default_rng(9).integers(0, TINY.vocab_size, 40).tolist()


def test_blocks_are_what_the_cache_bytes_hold() -> None:
    block_bytes = TINY.kv_bytes_per_token(4) * 16
    weights = ArrayWeights(tiny_arrays(TINY))
    runner = TorchRunner.load(TINY, weights, kv_bytes=block_bytes * 5 + 7, dtype="float32")
    assert (runner.num_blocks, runner.block_bytes) == (5, block_bytes)
    assert TorchRunner.load(TINY, weights, dtype="float32").num_blocks == TINY.context_length // 16
    half = TorchRunner.load(TINY, weights, num_blocks=3, dtype="bfloat16", block_size=32)
    assert (half.num_blocks, half.block_size, half.block_bytes) == (3, 32, block_bytes)


def test_weight_bytes_are_the_parameters_of_the_spec() -> None:
    weights = ArrayWeights(tiny_arrays(TINY))
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        runner = TorchRunner.load(TINY, weights, num_blocks=1, dtype=dtype)  # type: ignore[arg-type]
        assert runner.weight_bytes == TINY.parameters * size


def test_a_step_draws_the_most_probable_token_of_each_wanted_row(runner: TorchRunner) -> None:
    batch = ragged([(TOKENS, 0, [0, 1, 2])], rows=[0, 17, 39])
    expected = runner.logits(batch).argmax(-1).tolist()
    greedy = SampleRow(temperature=0)
    assert [drawn.token for drawn in runner.step(batch, [greedy] * 3)] == expected


def test_a_step_without_wanted_rows_still_writes_its_keys(runner: TorchRunner) -> None:
    expected = runner.logits(ragged([(TOKENS, 0, [0, 1, 2])]))[-1]
    fresh = TorchRunner.load(TINY, ArrayWeights(tiny_arrays(TINY)), num_blocks=16, dtype="float32")
    assert fresh.step(ragged([(TOKENS[:39], 0, [5, 6, 7])], rows=[]), []) == []
    got = fresh.logits(ragged([(TOKENS[39:], 39, [5, 6, 7])]))[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_copied_block_serves_as_the_original(runner: TorchRunner) -> None:
    expected = runner.logits(ragged([(TOKENS, 0, [0, 1, 2])]))[-1]
    runner.copy_block(1, 9)
    runner.copy_block(2, 10)
    got = runner.logits(ragged([(TOKENS[39:], 39, [0, 9, 10])]))[0]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_writing_a_copy_leaves_the_original_alone(runner: TorchRunner) -> None:
    runner.logits(ragged([(TOKENS, 0, [0, 1, 2])]))
    runner.copy_block(2, 10)
    before = runner.logits(ragged([(TOKENS[39:], 39, [0, 1, 2])]))[0]
    runner.logits(ragged([([1, 2, 3], 37, [0, 1, 10])]))
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[39:], 39, [0, 1, 2])]))[0], before)


def test_stale_blocks_of_another_sequence_are_never_seen(runner: TorchRunner) -> None:
    expected = runner.logits(ragged([(TOKENS[:20], 0, [4, 5])]))
    runner.logits(ragged([([7] * 64, 0, [4, 5, 6, 7])]))
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[:20], 0, [4, 5])])), expected)


@pytest.mark.parametrize("name", ["layers.1.k", "final_norm", "embed"])
def test_a_missing_tensor_is_named(name: str) -> None:
    weights = tiny_arrays(TINY)
    del weights[name]
    with pytest.raises(BadModelFile, match=f"'tiny' lacks the tensor '{name}' of shape"):
        TorchRunner.load(TINY, ArrayWeights(weights), num_blocks=1)


def test_a_misshapen_tensor_is_named_with_both_shapes() -> None:
    weights = tiny_arrays(TINY)
    weights["layers.0.o"] = weights["layers.0.o"][:, :-1]
    with pytest.raises(BadModelFile, match=r"'layers.0.o' has shape \(32, 31\), its spec says \(32, 32\)"):
        TorchRunner.load(TINY, ArrayWeights(weights), num_blocks=1)


def test_weights_that_the_spec_does_not_use_are_refused() -> None:
    weights = tiny_arrays(TINY) | {"layers.0.q.bias": np.ones(32)}
    with pytest.raises(BadModelFile, match=r"its spec does not use: layers\.0\.q\.bias"):
        TorchRunner.load(TINY, ArrayWeights(weights), num_blocks=1)


def test_a_cache_too_small_for_a_block_is_infeasible_and_says_how_much_one_takes() -> None:
    with pytest.raises(Infeasible, match=r"512 bytes holds no block of 16 tokens, which takes 4096 bytes"):
        TorchRunner.load(TINY, ArrayWeights(tiny_arrays(TINY)), kv_bytes=512, dtype="float32")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"dtype": "float8"}, "dtype 'float8' is unknown; use auto, float32 or bfloat16"),
        ({"device": "toaster"}, "device 'toaster' is unknown; use cpu"),
        ({"threads": 0}, "threads is 0, must be at least 1"),
        ({"block_size": 0}, "block_size is 0, must be at least 1"),
    ],
)
def test_impossible_options_are_refused_by_name(option: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        TorchRunner.load(TINY, ArrayWeights(tiny_arrays(TINY)), num_blocks=1, **option)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_cuda_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(Incompatible, match="sees no CUDA device; set device to cpu"):
        TorchRunner.load(TINY, ArrayWeights(tiny_arrays(TINY)), num_blocks=1, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_logits_equal_cpu_logits(runner: TorchRunner) -> None:
    batch = ragged([(TOKENS, 0, [0, 1, 2]), ([5], 0, [3])])
    device = TorchRunner.load(
        TINY, ArrayWeights(tiny_arrays(TINY)), num_blocks=16, dtype="float32", device="cuda"
    )
    np.testing.assert_allclose(device.logits(batch), runner.logits(batch), atol=1e-3)


def test_auto_takes_bfloat16_exactly_where_the_cpu_computes_it() -> None:
    found = torch.cpu.get_capabilities()
    native = any(found.get(flag) for flag in ("amx_bf16", "avx512_bf16", "bf16"))
    runner = TorchRunner.load(TINY, ArrayWeights(tiny_arrays(TINY)), num_blocks=1)
    assert runner.precision == ("bfloat16" if native else "float32")


def test_bfloat16_stays_close_to_float32(runner: TorchRunner) -> None:
    half = TorchRunner.load(TINY, ArrayWeights(tiny_arrays(TINY)), num_blocks=16, dtype="bfloat16")
    batch = ragged([(TOKENS, 0, [0, 1, 2])])
    exact, rounded = (torch.log_softmax(torch.from_numpy(r.logits(batch)), -1) for r in (runner, half))
    divergence = (exact.exp() * (exact - rounded)).sum(-1)
    assert divergence.mean() < 0.01


@pytest.mark.skipif(not packing_available(), reason="this CPU has no bfloat16 kernels to pack for")
@pytest.mark.parametrize("rows", [1, 2, 17, 130])
@pytest.mark.parametrize("biased", [False, True])
def test_packed_products_equal_plain_ones(rows: int, biased: bool) -> None:
    torch.manual_seed(rows)
    weight = torch.randn(72, 40).bfloat16()
    bias = torch.randn(72).bfloat16() if biased else None
    x, other = torch.randn(rows, 40).bfloat16(), torch.randn(rows, 72).bfloat16()
    plain = Dense(weight.float(), None if bias is None else bias.float())
    packed = Packed(weight, bias)
    close = {"atol": 0.1, "rtol": 0.02}
    torch.testing.assert_close(packed(x).float(), plain(x.float()), **close)
    torch.testing.assert_close(packed.times(x, other).float(), plain.times(x.float(), other.float()), **close)
    torch.testing.assert_close(packed.plus(x, other).float(), plain.plus(x.float(), other.float()), **close)
    kinds: tuple[Activation, ...] = ("silu", "gelu", "gelu_tanh", "relu")
    for kind in kinds:
        torch.testing.assert_close(
            packed.activated(x, kind).float(), plain.activated(x.float(), kind), **close
        )


def test_probes_return_positive_rates_and_times(runner: TorchRunner) -> None:
    assert 0 < probe.gemm_seconds(4, 64, 32, "float32", 1) < 1
    assert 0 < probe.gemm_seconds(4, 64, 32, "bfloat16", 1) < 1
    assert probe.stream_read_bytes_per_s(1 << 16, 1) > 1e6
    assert 0 < probe.step_seconds(runner, ragged([(TOKENS, 0, [0, 1, 2])]), 1) < 1
    with pytest.raises(InvalidRequest, match="m is 0"):
        probe.gemm_seconds(0, 1, 1, "float32")
    with pytest.raises(InvalidRequest, match="working_set_bytes is 3"):
        probe.stream_read_bytes_per_s(3)


def test_interleaved_rows_give_the_same_logits_as_halves() -> None:
    weights = tiny_arrays(TINY)
    interleaved = dict(weights)
    for i in range(TINY.layers):
        for name, heads in (("q", TINY.heads), ("k", TINY.kv_heads)):
            rows = weights[f"layers.{i}.{name}"].reshape(heads, 2, TINY.head_dim // 2, TINY.width)
            interleaved[f"layers.{i}.{name}"] = rows.swapaxes(1, 2).reshape(-1, TINY.width)
    turned = TINY.with_attention(positions=Rope(dim=8, pairing="interleaved"))
    batch = ragged([(TOKENS, 0, [0, 1, 2])])
    first, second = (
        TorchRunner.load(spec, ArrayWeights(found), num_blocks=4, dtype="float32").logits(batch)
        for spec, found in ((TINY, weights), (turned, interleaved))
    )
    np.testing.assert_array_equal(first, second)
