"""Folders of models that read images too: their language model computes what the whole does for text."""

from __future__ import annotations

import json
import pathlib
from functools import partial
from typing import Any

import pytest
import torch
import transformers

from expert_models import reference
from family_files import NARROW, SIZES, Case, V, write_folder
from pentad.errors import BadModelFile
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import open_model
from ragged_batches import check_mixed_step

TOLERANCE = 1e-3
SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
PIXTRAL = SIGLIP | {"model_type": "pixtral", "head_dim": 16}
ROPE = {"rope_type": "default", "rope_theta": 1e4}
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": SIZES | {"sliding_window": 24, "num_hidden_layers": 7},
        "vision_config": SIGLIP,
        "mm_tokens_per_image": 4,
        "image_token_index": 5,
    },
    "mistral3": {
        "text_config": SIZES | {"model_type": "mistral", "sliding_window": None},
        "vision_config": PIXTRAL,
        "image_token_index": 5,
    },
    "qwen2_5_vl": {
        "text_config": NARROW | {"rope_parameters": ROPE | {"mrope_section": [4, 6, 6]}},
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [0],
        },
        "image_token_id": 5,
        "video_token_id": 6,
        "vision_start_token_id": 7,
        "vision_end_token_id": 8,
    },
    "llama4": {
        "text_config": SIZES
        | {
            "num_hidden_layers": 5,
            "intermediate_size_mlp": 128,
            "num_local_experts": 4,
            "attention_chunk_size": 24,
        },
        "vision_config": SIGLIP
        | {"vision_output_dim": 64, "projector_input_dim": 32, "projector_output_dim": 32},
        "image_token_index": 5,
    },
}


def build(kind: str) -> Any:
    """The whole model with random weights."""
    config = transformers.AutoConfig.for_model(kind, **FAMILIES[kind])
    torch.manual_seed(7)
    model = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, value in model.named_parameters():
            one = value.dim() == 1
            value.copy_(torch.randn(value.shape) * (0.2 if one else 1.5 * value.shape[-1] ** -0.5))
            value.add_(1.0 if one and "norm" in name else 0.0)
    return model.float().eval()


@pytest.mark.parametrize("kind", FAMILIES)
def test_text_goes_through_the_language_model(
    kind: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build(kind)
    folder = write_folder(Case(kind=kind), model, tmp_path)
    files = open_model(folder)
    assert files.unread_media == ("images",)
    assert "images cannot be sent to it, text can" in caplog.text
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=64, dtype="float32")
    check_mixed_step(runner.logits, partial(reference, model), V, TOLERANCE)
    files.close()


def test_a_key_around_the_parts_that_is_not_known_is_refused(tmp_path: pathlib.Path) -> None:
    text = SIZES | {"model_type": "llama"}
    config = {"model_type": "aya_vision", "text_config": text, "vision_config": {}, "blends_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        BadModelFile, match="'blends_layers' is 2, which the 'aya_vision' family does not know"
    ):
        open_model(tmp_path)
