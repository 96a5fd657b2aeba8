"""A small real model in 8-bit floats with a scale per block: what it costs in perplexity and memory."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evidence.plugin import Measure
from model_fixtures import tokenizer_json
from native_support import HERE
from pentad.execution.native.runner import NativeRunner
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import ModelFiles, open_model
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


def _matrix_bytes(runner: NativeRunner, files: ModelFiles) -> int:
    """Of the layers' matrices as the kernels hold them: all but the table, which both keep alike."""
    return runner.weight_bytes - 2 * files.spec.vocab_size * files.spec.width


@pytest.mark.row("cost-fp8", "effect", claims=(1, 2))
@pytest.mark.skipif(not HERE, reason="no native kernels are built")
def test_a_real_model_in_fp8_blocks_has_bfloat16_s_perplexity_and_half_its_matrices(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    """SmolLM2-135M, on WikiText-2's validation text. On this processor the codes are numbers to emulate."""
    text = (DATA / "wikitext2-valid.txt").read_text()
    tokens = open_model(smollm2_path).tokenizer.encode(text[:60_000], special=False)
    assert len(tokens) > WINDOWS * WINDOW
    reference = gguf_reference(smollm2_path)
    found: dict[bool, tuple[float, int, int]] = {}
    for fp8 in (False, True):
        path = _folder(tmp_path / str(fp8), reference, fp8=fp8)
        files = open_model(path)
        runner = TorchRunner.load(files.spec, files.weights, num_blocks=WINDOW // 16, dtype="float32")
        perplexity = _perplexity(runner, tokens)
        runner.close()
        kernels = NativeRunner.load(files.spec, files.weights, num_blocks=WINDOW // 16, threads=1)
        held = _matrix_bytes(kernels, files)
        kernels.close()
        files.close()
        found[fp8] = perplexity, held, (path / "model.safetensors").stat().st_size
    (plain, plain_bytes, plain_file), (coded, coded_bytes, coded_file) = found[False], found[True]
    print(f"\nperplexity {plain:.4f}, in 8 bits {coded:.4f}; files {plain_file} and {coded_file} bytes")
    print(f"matrices in the kernels: {plain_bytes} and {coded_bytes} bytes")
    measured("perplexity over bfloat16's", coded / plain, at_most=1.01, unit="x")
    measured("bytes of the layers' matrices over bfloat16's", coded_bytes / plain_bytes, at_most=0.57)
