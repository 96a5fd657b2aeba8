"""What weights of 4 bits in groups gain on two cores against float32 and 8 bits, and what they cost."""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from accuracy_support import Ours, chats, measure, wikitext
from evidence.plugin import Measure
from native_support import HERE
from pentad.execution.native.runner import NativeRunner
from pentad.execution.quant import dequantize
from pentad.execution.runner import Runner
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.weights import StoredTensor
from pentad.model.loading import ModelFiles, open_model
from ragged_batches import ragged, whole

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HERE, reason="no native kernels are built")]

Record = Callable[[str, object], None]

ROUNDS = 5
PROMPT_TOKENS = 64
THREADS = 2
MODELS = {"smollm2-135m": 48, "qwen-1.5b": 12}
"""Models whose matrices are mostly stored in 4 bits (79% and 76% of their weights), and tokens to decode."""


class Wider:
    """A model's weights as float32, tensor by tensor; the kernels pack these into 8 bits."""

    def __init__(self, files: ModelFiles) -> None:
        self._weights = files.weights

    def names(self) -> Any:
        return self._weights.names()

    def tensor(self, name: str) -> StoredTensor:
        stored = self._weights.tensor(name)
        data = np.ascontiguousarray(dequantize(stored)).reshape(-1).view(np.uint8)
        return StoredTensor(name=name, format="F32", shape=stored.shape, data=data)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[ModelFiles, int]:
    fixture = {"smollm2-135m": "smollm2_path", "qwen-1.5b": "qwen_large_path"}[request.param]
    path: pathlib.Path = request.getfixturevalue(fixture)
    return open_model(path), MODELS[request.param]


def decode_tokens_per_s(runner: Runner, prompt: list[int], count: int) -> float:
    """One sequence, a token a step, behind a prompt that is not counted."""
    runner.step(whole(prompt, rows=[]), [])
    blocks = range(-(-(len(prompt) + count) // 16))
    started = time.perf_counter()
    for i in range(count):
        runner.logits(ragged([([prompt[i]], len(prompt) + i, blocks)]))  # type: ignore[attr-defined]
    return count / (time.perf_counter() - started)


def medians(runners: Mapping[str, Runner], prompt: list[int], count: int) -> dict[str, float]:
    """Rates of the runners, each in turn in every round after one that warms up."""
    rates: dict[str, list[float]] = {name: [] for name in runners}
    for i in range(ROUNDS + 1):
        for name, runner in runners.items():
            rate = decode_tokens_per_s(runner, prompt, count)
            if i:
                rates[name].append(rate)
    return {name: statistics.median(found) for name, found in rates.items()}


@pytest.mark.row("cpu-intel-int4", "effect")
def test_decoding_is_half_as_fast_again_as_in_float32(
    model: tuple[ModelFiles, int], record_property: Record, measured: Measure
) -> None:
    """Against PyTorch on the same weights in float32. Beside it, our own kernels on the weights in 8 bits."""
    files, count = model
    settings: dict[str, Any] = {"num_blocks": 16, "threads": THREADS}
    runners: dict[str, Any] = {
        "int4": NativeRunner.load(files.spec, files.weights, **settings),
        "int8": NativeRunner.load(files.spec, Wider(files), **settings),
        "float32": TorchRunner.load(files.spec, files.weights, dtype="float32", **settings),
    }
    prompt = files.tokenizer.encode("Some text to begin with. " * 40, special=False)[:PROMPT_TOKENS]
    rates = medians(runners, prompt, count)
    sizes = {name: runner.weight_bytes for name, runner in runners.items()}
    print(
        f"\n{files.name}: {', '.join(f'{name} {rate:.1f} tokens/s' for name, rate in rates.items())}; {sizes}"
    )
    record_property(f"{files.name}, tokens/s", {name: round(rate, 1) for name, rate in rates.items()})
    assert sizes["int4"] < 0.75 * sizes["int8"] < 0.25 * sizes["float32"]
    ratio = rates["int4"] / rates["float32"]
    measured(f"{files.name}, int4 over float32", ratio, at_least=1.5, unit="x")
    assert rates["int4"] > rates["int8"]


@pytest.mark.row("cpu-intel-int4", "effect")
def test_the_next_token_is_right_as_often_as_in_float32_to_a_point(
    smollm2_path: pathlib.Path, record_property: Record, measured: Measure
) -> None:
    """What the kernels lose against float32 on the same weights of 4 bits, in prompts and in answers."""
    files = open_model(smollm2_path)
    settings: dict[str, Any] = {"num_blocks": 16, "threads": THREADS}
    exact = Ours(TorchRunner.load(files.spec, files.weights, dtype="float32", **settings))
    ours = Ours(NativeRunner.load(files.spec, files.weights, **settings))
    found = measure(exact, {"int4": ours}, [*wikitext(files, 16), *chats(files)])
    points = {name: round(100 * distances.next_token, 2) for name, distances in found.items()}
    print(f"\nnext token right, of {len(found['exact'].right)}: {points}")
    record_property("next token right, percent", points)
    for way in ("prompt", "decode"):
        measured(f"points lost, {way}", points["exact"] - points[f"int4, {way}"], at_most=1)
