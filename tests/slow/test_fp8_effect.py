"""A small real model in 8-bit floats with a scale per block: what it costs in perplexity."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evidence.plugin import Measure
from model_fixtures import tokenizer_json
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import open_model
from ragged_batches import whole
from torch_reference import DATA, gguf_reference

pytestmark = pytest.mark.slow

WINDOW, WINDOWS, SIDE = 256, 8, 128
LARGEST = 448.0
"""Of the numbers that E4M3 has."""


def _codes(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """E4M3 codes, and what each square of 128 is multiplied with, as DeepSeek-V3's files hold them."""
    rows, columns = (-(-size // SIDE) for size in matrix.shape)
    padded = torch.zeros(rows * SIDE, columns * SIDE)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    squares = padded.view(rows, SIDE, columns, SIDE)
    scale = squares.abs().amax(dim=(1, 3)) / LARGEST
    scaled = (squares / scale[:, None, :, None]).view(padded.shape)[: matrix.shape[0], : matrix.shape[1]]
    return scaled.to(torch.float8_e4m3fn).contiguous(), scale


def _folder(folder: pathlib.Path, reference: Any, *, fp8: bool) -> pathlib.Path:
    """The model's folder in bfloat16, the layers' matrices in 8 bits if asked."""
    folder.mkdir()
    state = {}
    for name, value in reference.state_dict().items():
        if name == "lm_head.weight":
            continue
        if fp8 and name.endswith("proj.weight"):
            state[name], state[name + "_scale_inv"] = _codes(value.float())
        else:
            state[name] = value.bfloat16().contiguous()
    config = reference.config
    if fp8:
        config.quantization_config = {"quant_method": "fp8", "weight_block_size": [SIDE, SIDE]}
    config.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_text(tokenizer_json())
    return folder


def _perplexity(runner: Any, tokens: list[int]) -> float:
    losses = []
    for at in range(0, WINDOWS * WINDOW, WINDOW):
        part = tokens[at : at + WINDOW]
        logprobs = torch.from_numpy(np.array(runner.logits(whole(part)))).log_softmax(-1)
        losses.append(-logprobs[:-1].gather(1, torch.tensor(part[1:])[:, None]).mean().item())
    return math.exp(sum(losses) / len(losses))


@pytest.fixture(scope="module")
def folders(
    smollm2_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[bool, pathlib.Path]:
    """SmolLM2-135M's folder in bfloat16, and with its layers' matrices in 8 bits (True)."""
    reference, folder = gguf_reference(smollm2_path), tmp_path_factory.mktemp("fp8")
    return {fp8: _folder(folder / str(fp8), reference, fp8=fp8) for fp8 in (False, True)}


@pytest.mark.row("cost-fp8", "effect", claims=(1,), negative=True)
def test_a_model_of_135_million_loses_more_than_the_one_percent_that_was_hoped_for(
    folders: Mapping[bool, pathlib.Path], smollm2_path: pathlib.Path, measured: Measure
) -> None:
    """On WikiText-2's validation text. Three bits of mantissa are coarse for so small a model."""
    text = (DATA / "wikitext2-valid.txt").read_text()
    tokens = open_model(smollm2_path).tokenizer.encode(text[:20_000], special=False)
    assert len(tokens) > WINDOWS * WINDOW
    found = []
    for path in folders.values():
        files = open_model(path)
        runner = TorchRunner.load(files.spec, files.weights, num_blocks=WINDOW // 16, dtype="float32")
        found.append(_perplexity(runner, tokens))
        runner.close()
        files.close()
    measured("perplexity in 8 bits over bfloat16's", found[1] / found[0], at_least=1.01, unit="x")
    measured("perplexity in 8 bits over bfloat16's", found[1] / found[0], at_most=1.05, unit="x")
