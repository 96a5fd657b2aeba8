"""Published decoders at their published size: logits of the reference's own code, in float32.

Their checkpoints are on no package index, so the weights are random: what is shown is that the model of
that config is computed as the reference computes it, at its depth, width and vocabulary.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from evidence.plugin import Measure
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import open_model
from ragged_batches import ragged
from torch_folders import TINY_STARCODER, write_folder

pytestmark = pytest.mark.slow

OPT_125M: dict[str, Any] = {
    "vocab_size": 50_272,
    "hidden_size": 768,
    "word_embed_proj_dim": 768,
    "ffn_dim": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 2048,
}
GALACTICA_125M = OPT_125M | {"vocab_size": 50_000, "activation_function": "gelu", "enable_bias": False}
BLOOM_560M = {"vocab_size": 250_880, "hidden_size": 1024, "n_layer": 24, "n_head": 16}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2-124m": ("m-gpt2", "gpt2", {}),
    "opt-125m": ("m-opt", "opt", OPT_125M),
    "galactica-125m": ("m-galactica", "opt", GALACTICA_125M),
    "bloom-560m": ("m-bloom", "bloom", BLOOM_560M),
    "tiny_starcoder": ("m-starcoder", "gpt_bigcode", TINY_STARCODER),
}
"""Row, `model_type`, what differs from the config's defaults."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.row(row, "effect", claims=(1,))) for n, (row, *_) in MODELS.items()],
)
def test_logits_at_the_published_size_are_the_reference_s(
    name: str, tmp_path: pathlib.Path, measured: Measure
) -> None:
    _, kind, changed = MODELS[name]
    config = transformers.AutoConfig.for_model(kind, **changed)
    files = open_model(write_folder(tmp_path, config))
    tokens = np.random.default_rng(0).integers(3, files.spec.vocab_size, 96).tolist()
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens])).logits[0].numpy()
    assert files.spec.parameters == sum(value.numel() for value in reference.parameters())
    del reference
    assert expected.std() > 0.3, "near-constant logits would prove nothing"
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=8, dtype="float32")
    blocks = [5, 2, 7, 0, 3, 6]
    parts = [runner.logits(ragged([(tokens[a:b], a, blocks)])) for a, b in ((0, 64), (64, 95), (95, 96))]
    error = float(np.abs(np.concatenate(parts) - expected).max())
    measured(f"{name}, largest logit error", error, at_most=1e-3)
    files.close()
