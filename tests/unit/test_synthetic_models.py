"""The script that makes models for measurements of speed, on its small geometries."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from types import ModuleType

import numpy as np
import pytest

from native_support import HERE
from pentad.execution.native.runner import NativeRunner
from pentad.model.loading import open_model
from ragged_batches import ragged

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "synthetic.py"


@pytest.fixture(scope="module")
def synthetic() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthetic", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["synthetic"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("qwen2.5-0.5b", 0.494e9),
        ("qwen2.5-1.5b", 1.544e9),
        ("qwen2.5-7b", 7.616e9),
        ("llama3.1-8b", 8.030e9),
        ("qwen3-30b-a3b", 30.53e9),
    ],
)
def test_a_geometry_has_as_many_weights_as_the_model_it_is_named_for(
    synthetic: ModuleType, name: str, weights: float
) -> None:
    g = synthetic.GEOMETRIES[name]
    layer = sum(np.prod(shape) for _, shape in synthetic.matrices(g, 0).values())
    total = (
        g.layers * (layer + sum(synthetic.vectors(g).values())) + g.vocab * g.width * (2 - g.tied) + g.width
    )
    assert total == pytest.approx(weights, rel=0.002)


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
@pytest.mark.parametrize("name", ["tiny", "tiny-experts"])
def test_a_file_loads_with_its_tokenizer_and_gives_finite_logits(
    synthetic: ModuleType, name: str, tmp_path: pathlib.Path
) -> None:
    files = open_model(synthetic.write(synthetic.GEOMETRIES[name], tmp_path / "m.gguf"))
    runner = NativeRunner.load(files.spec, files.weights, num_blocks=8, threads=1)
    tokens = files.tokenizer.encode("a text\n", special=False)
    assert files.tokenizer.decode(tokens) == "a text\n"
    logits = runner.logits(ragged([(tokens, 0, [0])]))
    assert np.isfinite(logits).all()
    assert logits.std() > 0
    runner.close()
    files.close()


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
def test_a_token_reads_the_bytes_of_the_experts_that_it_goes_to(
    synthetic: ModuleType, tmp_path: pathlib.Path
) -> None:
    """No byte of another's. Packed, Q4_K takes 5 bits a weight and Q6_K 7, of 4.5 and 6.56 in the file."""
    g, bits = synthetic.GEOMETRIES["tiny-experts"], {"Q4_K": 5, "Q6_K": 7}
    files = open_model(synthetic.write(g, tmp_path / "m.gguf"))
    runner = NativeRunner.load(files.spec, files.weights, num_blocks=8, threads=1)
    runner.logits(ragged([([3], 0, [0])]))
    routed = sum(
        np.prod(shape) * bits[kind.name] // 8 * g.experts_used // g.experts
        for layer in range(g.layers)
        for name, (kind, shape) in synthetic.matrices(g, layer).items()
        if name.endswith("_exps")
    )
    assert runner.expert_bytes_read() == routed
    runner.close()
    files.close()
