"""What a GPU replays, computed on the CPU: padded decode steps, their kernel's reference, their recording."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pentad.execution.spec import ModelSpec
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.decode import gathered
from pentad.execution.torch.graphs import BUCKETS, Compute, DecodeSteps, StepBuffers, bucket_for
from pentad.execution.torch.program import Program
from pentad.execution.torch.runner import TorchRunner
from ragged_batches import ragged
from torch_decoding import (
    BLOCKS,
    SHAPES,
    WINDOWED,
    Shape,
    attended,
    decoding,
    parts,
    prompts,
    tables_of,
    tokens_of,
)
from torch_drawing import assert_same, random_rows
from torch_generation import engine, generate
from torch_reference import TINY, ArrayWeights, tiny_arrays

LENGTHS = (40, 1, 17, 100, 16, 33, 5, 250)


def unrecorded(compute: Compute) -> Compute:
    """In the place of a GPU's recorder."""
    return compute


def plain(spec: ModelSpec) -> TorchRunner:
    return TorchRunner.load(spec, ArrayWeights(tiny_arrays(spec)), num_blocks=BLOCKS, dtype="float32")


def filled(spec: ModelSpec, lengths: Sequence[int]) -> tuple[Program, KVCache]:
    """A program and a cache that holds the prompts of sequences of those lengths."""
    program, cache = parts(spec)
    TorchRunner(program, cache).logits(prompts(lengths))
    return program, cache


def test_a_bucket_is_the_smallest_that_holds_the_rows() -> None:
    assert [bucket_for(n) for n in (1, 2, 3, 4, 5, 9, 33, 64)] == [1, 2, 4, 4, 8, 16, 64, 64]


@pytest.mark.parametrize("spec", [TINY, WINDOWED], ids=["full", "windowed"])
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8])
def test_a_padded_step_gives_the_logits_of_the_unpadded_one(spec: ModelSpec, rows: int) -> None:
    lengths = LENGTHS[:rows]
    reference = plain(spec)
    reference.logits(prompts(lengths))
    expected = reference.logits(decoding(lengths))
    steps = DecodeSteps(*filled(spec, lengths), gathered, unrecorded)
    batch = decoding(lengths)
    assert steps.takes(batch)
    with torch.inference_mode():
        got = steps.logits(batch).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_padding_rows_write_to_the_scratch_block_alone() -> None:
    program, cache = filled(TINY, LENGTHS[:3])
    blocks = [cache.layer(i) for i in range(TINY.layers)]
    before = [layer.clone() for layer in blocks]
    batch = decoding(LENGTHS[:3])
    with torch.inference_mode():
        DecodeSteps(program, cache, gathered, unrecorded).logits(batch)
    written = {divmod(int(slot), 16) for slot in batch.slots} | {(BLOCKS, 0)}
    for old, new in zip(before, blocks, strict=True):
        changed = (old != new).flatten(2).any(-1).nonzero().tolist()
        assert {(block, slot) for block, slot in changed} == written


def test_rows_of_an_earlier_larger_step_leave_no_trace_in_a_smaller_one() -> None:
    program, cache = filled(TINY, LENGTHS)
    steps, tables = DecodeSteps(program, cache, gathered, unrecorded), tables_of(LENGTHS)
    with torch.inference_mode():
        whole = steps.logits(decoding(LENGTHS)).clone()
        before = [cache.layer(i)[:BLOCKS].clone() for i in range(TINY.layers)]
        cut = ragged([(tokens_of(i, n)[-1:], n - 1, tables[i]) for i, n in enumerate(LENGTHS[:5])])
        smaller = steps.logits(cut)
    np.testing.assert_allclose(smaller.numpy(), whole[:5].numpy(), atol=1e-5)
    for i, layer in enumerate(before):  # nothing was written but the same numbers, and what pads
        np.testing.assert_allclose(cache.layer(i)[:BLOCKS].numpy(), layer.numpy(), atol=1e-5)


def test_a_step_is_sent_as_few_lines_and_its_idle_rows_see_one_slot() -> None:
    _, cache = parts(TINY)
    buffers = StepBuffers(4, cache, 16)
    buffers.fill(decoding((40, 1)))
    assert buffers.rows.lens.tolist() == [40, 1, 1, 1]
    assert buffers.rows.tables[0, 2:].tolist() == [BLOCKS, BLOCKS]
    assert buffers.slots[2:].tolist() == [BLOCKS * 16] * 2
    assert (buffers.rows.tables[3:] == BLOCKS).all(), "lines that no row needs are as they were"


def test_steps_with_chunks_trees_unwanted_logits_or_too_many_rows_are_not_taken() -> None:
    steps = DecodeSteps(*parts(TINY), gathered, unrecorded)
    assert steps.takes(decoding((3, 4)))
    assert not steps.takes(ragged([([1, 2], 4, [0]), ([3], 2, [1])]))
    assert not steps.takes(ragged([([1], 4, [0]), ([3], 2, [1])], rows=[1]))
    assert not steps.takes(decoding((2,) * (BUCKETS[-1] + 1)))
    assert not steps.takes(ragged([([1], TINY.context_length, list(range(17)))]))
    masks = {"tree_slots": np.array([0, 1], np.int32), "tree_masks": np.array([0, 1], np.uint64)}
    assert not steps.takes(dataclasses.replace(decoding((3, 4)), **masks))


def test_each_bucket_is_recorded_once_and_replayed_with_new_inputs() -> None:
    runs: list[int] = []

    def record(compute: Compute) -> Compute:
        number = len(runs)
        runs.append(0)

        def replay() -> torch.Tensor:
            runs[number] += 1
            return compute()

        return replay

    program, cache = filled(TINY, LENGTHS)
    steps = DecodeSteps(program, cache, gathered, record)
    with torch.inference_mode():
        for lengths in (LENGTHS, LENGTHS[:3], LENGTHS, LENGTHS[:4]):
            steps.logits(decoding(lengths))
    assert runs == [2, 2]


def test_a_step_that_cannot_be_recorded_is_computed_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def record(compute: Compute) -> Compute:
        raise RuntimeError("operation not permitted when stream is capturing")

    program, cache = filled(TINY, LENGTHS[:3])
    expected = TorchRunner(program, cache).logits(decoding(LENGTHS[:3]))
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        got = DecodeSteps(program, cache, gathered, record).logits(decoding(LENGTHS[:3]))
    assert "steps of 4 rows run unrecorded, slower: operation not permitted" in caplog.text
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("spec", [TINY, WINDOWED], ids=["full", "windowed"])
def test_a_runner_with_padded_steps_and_the_fused_kernel_writes_the_same_text(spec: ModelSpec) -> None:
    program, cache = parts(spec)
    steps = DecodeSteps(program, cache, gathered, unrecorded)
    padded = TorchRunner(program, cache, kernel=gathered, steps=steps)
    assert (padded.num_blocks, padded.block_bytes) == (BLOCKS, plain(spec).block_bytes)
    texts = [tuple(range(start, start + length)) for start, length in ((1, 9), (3, 30), (5, 2), (7, 61))]
    mixed = [generate(engine(r, max_batch_tokens=24), texts, 20).tokens for r in (padded, plain(spec))]
    assert mixed[0] == mixed[1]


def test_a_runner_that_draws_where_the_logits_are_draws_the_same() -> None:
    rows = random_rows(np.random.default_rng(6), len(LENGTHS), TINY.vocab_size)
    drawn = []
    for draws_there in (True, False):
        runner = TorchRunner(*filled(TINY, LENGTHS), draws_there=draws_there)
        drawn.append(runner.step(decoding(LENGTHS), rows))
        assert runner.step(ragged([([3], 0, [0])], rows=[]), []) == []
    assert_same(*drawn)


def test_a_recorded_step_never_asks_the_host_nor_mixes_devices() -> None:
    """On tensors without numbers, which refuse to be read and to be computed with those of the CPU."""
    steps = DecodeSteps(*parts(WINDOWED, torch.device("meta")), gathered, unrecorded)
    with torch.inference_mode():
        logits = steps.logits(decoding(LENGTHS[:3]))
    assert (logits.device.type, tuple(logits.shape)) == ("meta", (3, TINY.vocab_size))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_triton_kernel_interpreted_equals_the_gathered_reference(shape: Shape) -> None:
    if importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs Triton and TRITON_INTERPRET=1 in the environment; on a GPU: scripts/device_check")
    from pentad.execution.torch.triton_decode import TritonDecode

    expected = attended(gathered, shape)
    for processors in (1, 8, 132):
        got = attended(TritonDecode(processors), shape)
        np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=2e-5)
