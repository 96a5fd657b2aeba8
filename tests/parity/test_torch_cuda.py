"""The runner on a GPU: what it computes, records and draws equals the CPU. Skipped where there is none.

scripts/device_check runs these alone. The padded steps, the reference of the kernel and the drawing
are tested on the CPU in test_torch_cuda_steps.py and test_torch_cuda_drawing.py.
"""

from __future__ import annotations

import importlib.util
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pentad.execution.batch import SampleRow
from pentad.execution.sampling import draw_batch
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.decode import gathered
from pentad.execution.torch.graphs import DecodeSteps, GraphRecorder
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.torch.sampling import draw_rows
from ragged_batches import ragged
from torch_decoding import BLOCKS, SHAPES, WINDOWED, Shape, attended, decoding, parts, prompts
from torch_drawing import assert_same, random_logits, random_rows
from torch_reference import TINY, ArrayWeights, tiny_arrays

GPU = torch.device("cuda", 0)
LENGTHS = (40, 1, 17, 100, 16, 33, 5, 250)


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip(f"needs a CUDA device; PyTorch {torch.__version__} sees none (scripts/device_check)")


@pytest.fixture
def _triton() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs Triton, which comes with the CUDA wheels of PyTorch")


def load(device: str, spec: ModelSpec = TINY, **options: Any) -> TorchRunner:
    options = {"num_blocks": BLOCKS, "dtype": "float32", **options}
    return TorchRunner.load(spec, ArrayWeights(tiny_arrays(spec)), device=device, **options)


MIXED = ragged([([5, 6, 7], 0, [70]), ([8], 20, [71, 72]), ([9, 1], 16, [73, 74]), ([2], 0, [75])])


@pytest.mark.parametrize("spec", [TINY, WINDOWED], ids=["full", "windowed"])
def test_logits_of_prompts_chunks_and_decode_steps_equal_the_cpu_s(spec: ModelSpec) -> None:
    batches = [prompts(LENGTHS), decoding(LENGTHS), MIXED, decoding(LENGTHS)]
    found = [
        [runner.logits(batch) for batch in batches] for runner in (load("cuda", spec), load("cpu", spec))
    ]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.usefixtures("_triton")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_triton_kernel_equals_the_gathered_reference(shape: Shape, dtype: torch.dtype) -> None:
    from pentad.execution.torch.triton_decode import TritonDecode

    expected = attended(gathered, shape)
    close = 1e-4 if dtype == torch.float32 else 0.05
    for processors in (1, torch.cuda.get_device_properties(GPU).multi_processor_count):
        got = attended(TritonDecode(processors), shape, dtype, GPU)
        np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=close, rtol=close)


@pytest.mark.usefixtures("_triton")
@pytest.mark.parametrize("spec", [TINY, WINDOWED], ids=["full", "windowed"])
def test_replayed_steps_equal_those_computed_at_once(
    spec: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    replayed, eager = load("cuda", spec), load("cuda", spec, graphs=False)
    with caplog.at_level(logging.WARNING):
        for count in (8, 3, 1, 8, 5, 3):
            for runner in (replayed, eager):
                runner.logits(prompts(LENGTHS[:count]))
            for _ in range(2):
                ours, theirs = (r.logits(decoding(LENGTHS[:count])) for r in (replayed, eager))
                np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert "unrecorded" not in caplog.text
    assert replayed._steps is not None
    assert sorted(replayed._steps._steps) == [1, 4, 8]


def test_the_gathered_reference_is_recorded_and_replayed_alike() -> None:
    program, cache = parts(TINY, GPU)
    TorchRunner(program, cache).logits(prompts(LENGTHS))
    with torch.cuda.device(GPU), torch.inference_mode():
        replayed = DecodeSteps(program, cache, gathered, GraphRecorder(GPU)).logits(decoding(LENGTHS)).cpu()
        at_once = DecodeSteps(program, cache, gathered, lambda c: c).logits(decoding(LENGTHS)).cpu()
    torch.testing.assert_close(replayed, at_once, atol=1e-5, rtol=0)


def test_graphs_of_two_buckets_keep_apart_what_they_compute() -> None:
    runner = load("cuda")
    runner.logits(prompts(LENGTHS))
    first = [runner.logits(decoding(LENGTHS)) for _ in range(2)]
    free = sorted(set(range(BLOCKS)) - set(decoding(LENGTHS).block_tables.flatten().tolist()))
    for count in (1, 2, 4):
        runner.logits(ragged([([3], 0, [block]) for block in free[:count]]))
    np.testing.assert_allclose(runner.logits(decoding(LENGTHS)), first[0], atol=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_draws_on_the_gpu_are_the_reference_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vocab, count = int(rng.choice([100, 5003, 49152, 151936])), int(rng.integers(1, 17))
    logits, rows = random_logits(rng, count, vocab), random_rows(rng, count, vocab)
    assert_same(draw_rows(torch.from_numpy(logits).to(GPU), rows), draw_batch(logits, rows))


def test_a_step_draws_what_its_logits_say() -> None:
    runner = load("cuda")
    rows = [SampleRow(temperature=0), SampleRow(seed=1), SampleRow(raw=True), SampleRow(seed=2, top_p=0.8)]
    runner.logits(prompts(LENGTHS[:4]))
    expected = draw_batch(runner.logits(decoding(LENGTHS[:4])), rows)
    assert_same(runner.step(decoding(LENGTHS[:4]), rows), expected)


def test_blocks_and_slots_are_copied_on_the_gpu() -> None:
    runner = load("cuda")
    runner.logits(ragged([(list(range(20)), 0, [0, 1])]))
    expected = runner.logits(ragged([([7], 20, [0, 1])]))
    runner.copy_block(1, 5)
    runner.copy_slots([(3, 6 * 16 + 3), (4, 6 * 16 + 4)])
    np.testing.assert_allclose(runner.logits(ragged([([7], 20, [0, 5])])), expected, atol=1e-5)
    copied = runner._open()[1].layer(1)
    assert torch.equal(copied[6, 3:5], copied[0, 3:5])


def test_bfloat16_stays_close_to_float32() -> None:
    exact, half = load("cuda"), load("cuda", dtype="bfloat16")
    for runner in (exact, half):
        runner.logits(prompts(LENGTHS))
    ours, theirs = (torch.from_numpy(r.logits(decoding(LENGTHS))).log_softmax(-1) for r in (exact, half))
    assert (ours.exp() * (ours - theirs)).sum(-1).mean() < 0.01


@pytest.fixture(scope="module")
def texts(smollm2_path: pathlib.Path) -> Iterator[tuple[Any, list[tuple[int, ...]]]]:
    from pentad.model.loading import open_model
    from torch_generation import prompts as lines

    files = open_model(smollm2_path)
    yield files, lines(files, 10)
    files.close()


def test_greedy_text_of_a_real_model_equals_the_cpu_s(texts: tuple[Any, list[tuple[int, ...]]]) -> None:
    from torch_generation import engine, generate

    files, lines = texts
    found = []
    for device in ("cuda", "cpu"):
        runner = TorchRunner.load(files.spec, files.weights, num_blocks=400, dtype="float32", device=device)
        found.append(generate(engine(runner), lines, 24).tokens)
        runner.close()
    assert found[0] == found[1]
