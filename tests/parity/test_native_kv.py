"""The setting kv_dtype from end to end with SmolLM2: sizes, what runs where, and what is refused."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from native_support import HERE
from pentad.application.config import EngineSettings
from pentad.application.runners import kv_element_bytes, load_runner
from pentad.errors import Incompatible
from pentad.execution.scheduling import EngineLimits
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import ModelFiles, open_model
from torch_generation import engine, generate, prompts

pytestmark = pytest.mark.row("phase-kv-quant", "mechanism")


@pytest.fixture(scope="module")
def files(smollm2_path: pathlib.Path) -> Iterator[ModelFiles]:
    opened = open_model(smollm2_path)
    yield opened
    opened.close()


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
def test_a_budget_holds_almost_twice_the_blocks_in_int8(files: ModelFiles) -> None:
    budget, blocks = 64 << 20, {}
    for kind in ("auto", "int8"):
        settings = EngineSettings(kv_dtype=kind, kv_bytes=budget, threads=1)
        runner = load_runner(files, settings, EngineLimits())
        blocks[kind] = runner.num_blocks
        assert runner.num_blocks == budget // runner.block_bytes
        token_bytes = files.spec.kv_bytes_per_token(kv_element_bytes(files, settings))
        assert token_bytes * runner.block_size == runner.block_bytes
        runner.close()
    assert blocks["int8"] / blocks["auto"] == pytest.approx(2 / (1 + 2 / 64), rel=0.01)


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
def test_batching_preemption_and_the_prefix_cache_change_no_token(files: ModelFiles) -> None:
    asked = prompts(files, 30)[:6]
    row_by_row = next(name for name in HERE if name != "amx")
    settings = EngineSettings(kv_dtype="int8", kv_bytes=64 << 20, kernels=row_by_row, threads=1)
    outcomes = []
    for sequences, preempt_after in ((8, None), (1, None), (8, 5)):
        runner = load_runner(files, settings, EngineLimits())
        made = engine(runner, max_sequences=sequences, preempt_after_tokens=preempt_after)
        outcomes.append(generate(made, asked, 16))
        runner.close()
    assert outcomes[0].tokens == outcomes[1].tokens == outcomes[2].tokens
    assert outcomes[2].preemptions > 0


def test_pytorch_refuses_int8_and_names_the_remedy(files: ModelFiles) -> None:
    settings = EngineSettings(kernels="torch", kv_dtype="int8", kv_bytes=64 << 20)
    with pytest.raises(Incompatible, match="not in 'int8'; set kv_dtype to auto, or kernels to auto"):
        load_runner(files, settings, EngineLimits())
    with pytest.raises(Incompatible, match="PyTorch keeps keys and values in what it computes in, float32"):
        TorchRunner.load(files.spec, files.weights, num_blocks=2, dtype="float32", kv_dtype="bfloat16")
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=2, dtype="float32", kv_dtype="float32")
    assert runner.block_bytes == files.spec.kv_bytes_per_token(4) * 16
    runner.close()
