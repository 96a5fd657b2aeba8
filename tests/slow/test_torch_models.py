"""Whole models: logits of the reference in float32, and memory as planned."""

from __future__ import annotations

import gc
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from evidence.plugin import Measure
from pentad.execution.device import Cluster, DeviceProfile, MemoryTier
from pentad.execution.torch.rope import inverse_frequencies
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import ModelFiles, open_model
from pentad.resource.placement import ModelForm, Workload, plan
from ragged_batches import whole
from torch_folders import (
    LLAMA_2_7B_TWO_LAYERS,
    LLAMA_3_2_1B,
    TINY_STARCODER,
    TINYLLAMA_1_1B,
    memory_of,
    write_folder,
)
from torch_generation import PROMPTS, engine, generate
from torch_reference import gguf_reference

pytestmark = pytest.mark.slow

MACHINE = DeviceProfile(
    name="here",
    kind="cpu",
    source="assumed",
    memory=(MemoryTier(name="ram", capacity_bytes=64 << 30, read_bytes_per_s=20e9),),
    flops_per_s={"f32": 2e11, "bf16": 1e12},
    cores=2,
)


def _reference_logits(model: Any, texts: list[list[int]]) -> list[np.ndarray]:
    with torch.inference_mode():
        return [model(torch.tensor([tokens])).logits[0].numpy() for tokens in texts]


def _worst_error(files: ModelFiles, texts: list[list[int]], expected: list[np.ndarray]) -> float:
    """The largest difference of any logit in float32."""
    assert all(wanted.std() > 0.3 for wanted in expected), "near-constant logits would prove nothing"
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=64, dtype="float32")
    return max(
        float(np.abs(runner.logits(whole(tokens)) - wanted).max())
        for tokens, wanted in zip(texts, expected, strict=True)
    )


def _planned_bytes(files: ModelFiles, slots: int) -> int:
    """Memory that `pentad plan` predicts for the model in bfloat16 with one sequence of `slots` tokens."""
    load = Workload(prompt_tokens=slots - 1, new_tokens=1, concurrency=1, max_batch_tokens=512)
    found = plan("single", files.spec, Cluster(devices=(MACHINE,)), load, form=ModelForm())
    return found.stages[0].total_bytes


def _check_memory(path: pathlib.Path, files: ModelFiles, tolerance: float, measured: Measure) -> None:
    slots = 1024
    planned = _planned_bytes(files, slots)
    found = memory_of(path, "bfloat16", slots // 16)
    print(f"\n{files.name}: planned {planned / 1e6:.0f} MB, used {found['used_bytes'] / 1e6:.0f} MB, {found}")
    error = abs(found["used_bytes"] / planned - 1)
    measured(f"{files.name}, memory against the plan", error, at_most=tolerance)


@pytest.mark.parametrize("size", ["0.5b", "1.5b"])
@pytest.mark.row("m-qwen25", "effect", claims=(1, 2))
def test_qwen_logits_and_memory(size: str, request: pytest.FixtureRequest, measured: Measure) -> None:
    path = request.getfixturevalue("qwen_path" if size == "0.5b" else "qwen_large_path")
    files = open_model(path)
    code = "def fibonacci(n: int) -> int:\n    if n < 2:\n        return n\n    return fib"
    texts = [files.tokenizer.encode(text, special=False) for text in (code, "The capital of France is")]
    texts.append(files.tokenizer.encode(PROMPTS.read_text(), special=False)[: 560 if size == "0.5b" else 200])
    reference = gguf_reference(path)
    expected = _reference_logits(reference, texts)
    del reference
    gc.collect()
    error = _worst_error(files, texts, expected)
    print(f"\nqwen2.5 {size}: largest logit error {error:.2e}, largest logit {expected[0].max():.1f}")
    measured(f"qwen2.5 {size}, largest logit error", error, at_most=1e-3)
    gc.collect()
    _check_memory(path, files, 0.03, measured)


@pytest.mark.row("m-llama3", "effect", claims=(1, 3))
def test_llama_3_2_1b_geometry_loads_with_the_reference_s_logits_and_the_planned_memory(
    tmp_path: pathlib.Path, measured: Measure
) -> None:
    config = transformers.LlamaConfig(**LLAMA_3_2_1B)
    folder = write_folder(tmp_path, config)
    files = open_model(folder)
    assert files.spec.parameters == 1_235_814_400
    rope = files.spec.rope
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(
        inverse_frequencies(rope),  # type: ignore[arg-type]
        reference.model.rotary_emb.inv_freq,
        rtol=1e-6,
        atol=0,
    )
    texts = [np.random.default_rng(0).integers(0, 128256, 96).tolist()]
    expected = _reference_logits(reference, texts)
    del reference
    gc.collect()
    error = _worst_error(files, texts, expected)
    print(f"\nllama-3.2-1b geometry: largest logit error {error:.2e}")
    measured("largest logit error", error, at_most=1e-3)
    gc.collect()
    _check_memory(folder, files, 0.05, measured)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param(
            "tinyllama-1.1b", TINYLLAMA_1_1B, marks=pytest.mark.row("m-llama2", "effect", claims=(2,))
        ),
        pytest.param(
            "llama-2-7b in two layers", LLAMA_2_7B_TWO_LAYERS, marks=pytest.mark.row("m-llama2", "effect")
        ),
    ],
)
def test_llama_2_geometries_load_with_the_reference_s_logits(
    name: str, settings: dict[str, Any], tmp_path: pathlib.Path, measured: Measure
) -> None:
    """TinyLlama's checkpoint is not on any package index; its geometry is tested with random weights."""
    folder = write_folder(tmp_path, transformers.LlamaConfig(**settings))
    files = open_model(folder)
    assert files.spec.attention == ("gqa" if "tiny" in name else "mha")
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    texts = [np.random.default_rng(0).integers(0, 32000, 96).tolist()]
    expected = _reference_logits(reference, texts)
    del reference
    gc.collect()
    error = _worst_error(files, texts, expected)
    print(f"\n{name}: largest logit error {error:.2e}")
    measured(f"{name}, largest logit error", error, at_most=1e-3)


@pytest.mark.row("mem-mqa", "effect", claims=(2,))
def test_tiny_starcoder_geometry_decodes_like_the_reference_with_a_twelfth_of_the_kv_bytes(
    tmp_path: pathlib.Path, measured: Measure
) -> None:
    """The checkpoint is not on any package index; its geometry is tested with random weights."""
    folder = write_folder(tmp_path, transformers.GPTBigCodeConfig(**TINY_STARCODER))
    files = open_model(folder)
    assert files.spec.kv_bytes_per_token() * 12 == 2 * 20 * 768 * 2
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=64, dtype="float32")
    assert runner.block_bytes * 12 == 2 * 20 * 768 * 4 * 16
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(0, 49152, size).tolist()) for size in (5, 33, 70)]
    got = generate(engine(runner), prompts, 24).tokens
    for prompt, tokens in zip(prompts, got, strict=True):
        with torch.inference_mode():
            answer = reference.generate(
                torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
            )
        assert answer[0, len(prompt) :].tolist() == tokens
    full = list(prompts[2]) + got[2]
    expected = _reference_logits(reference, [full])
    error = _worst_error(files, [full], expected)
    print(f"\ntiny_starcoder geometry: largest logit error {error:.2e}")
    measured("largest logit error", error, at_most=1e-3)
