"""Batching pays: eight sequences together against one after the other, on the default model."""

from __future__ import annotations

import pathlib
import time
from typing import Literal

import pytest

from evidence.plugin import Measure
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import open_model
from torch_generation import engine, generate, prompts

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.row("ag-query-batch", "effect", claims=(1,))
def test_eight_together_give_at_least_twice_the_tokens_per_second(
    precision: Literal["float32", "bfloat16"], smollm2_path: pathlib.Path, measured: Measure
) -> None:
    """In float32 the tokens are equal too; bfloat16 rounds by batch, so its texts may part at a near-tie."""
    files = open_model(smollm2_path)
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=256, dtype=precision)
    asked, tokens = prompts(files, 8), 48
    generate(engine(runner), asked, 4)

    started = time.perf_counter()
    serial_engine = engine(runner, max_sequences=1, check_invariants=False)
    serial = [generate(serial_engine, [prompt], tokens).tokens[0] for prompt in asked]
    serial_s = time.perf_counter() - started

    started = time.perf_counter()
    batched = generate(engine(runner, check_invariants=False), asked, tokens).tokens
    batched_s = time.perf_counter() - started

    equal = sum(a == b for a, b in zip(serial, batched, strict=True))
    print(
        f"\n{precision}: serial {8 * tokens / serial_s:.0f} tokens/s, "
        f"batch 8 {8 * tokens / batched_s:.0f} tokens/s, "
        f"{serial_s / batched_s:.1f} times; {equal} of 8 texts equal"
    )
    measured(f"batch 8 over serial, {precision}", serial_s / batched_s, at_least=2, unit="x")
    if precision == "float32":
        assert batched == serial
