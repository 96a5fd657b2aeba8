"""T5's and mT5's encoders alone against the reference code."""

from __future__ import annotations

import pathlib
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from expert_models import open_folder, open_gguf
from pentad.execution.native.encoder import NativeEncoder
from pentad.execution.torch.encoder import TorchEncoder

V, TOLERANCE = 160, 1e-3
SIZES = {
    "vocab_size": V,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "initializer_factor": 2.0,
}
KINDS = {"t5": ("T5", "relu"), "flan-t5": ("T5", "gated-gelu"), "mt5": ("MT5", "gated-gelu")}


def build(kind: str, part: str, folder: pathlib.Path) -> Any:
    """A saved model of random weights, none of them trivial."""
    stem, inner = KINDS[kind]
    torch.manual_seed(5)
    config = getattr(transformers, f"{stem}Config")(**SIZES, feed_forward_proj=inner)
    model = getattr(transformers, f"{stem}{part}")(config).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.dim() == 1:
                value.add_(torch.randn_like(value) * 0.2)
    model.save_pretrained(folder)
    return model


def write_gguf(folder: pathlib.Path) -> pathlib.Path:
    """The file that the reference converter would write, names by the `gguf` package."""
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, "t5encoder")
    for key, size in (
        ("block_count", 3),
        ("embedding_length", 64),
        ("feed_forward_length", 96),
        ("attention.head_count", 4),
        ("attention.key_length", 16),
        ("attention.relative_buckets_count", 32),
    ):
        writer.add_uint32(f"t5encoder.{key}", size)
    writer.add_float32("t5encoder.attention.layer_norm_rms_epsilon", 1e-6)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 3)
    for name, tensor in safetensors.numpy.load_file(folder / "model.safetensors").items():
        found = names.get_name(name, try_suffixes=(".weight",))
        if found is not None:  # the embeddings stand twice in some folders
            writer.add_tensor(found, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def texts() -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [rng.integers(2, V, size).tolist() for size in (9, 1, 70)]


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_of_an_encoder_equal_the_reference(kind: str, tmp_path: pathlib.Path) -> None:
    model = build(kind, "EncoderModel", tmp_path)
    spec, weights = open_folder(tmp_path)
    assert NativeEncoder.supports(spec, weights) == "its scores have relative biases"
    for text, found in zip(texts(), TorchEncoder(spec, weights).states(texts()), strict=True):
        with torch.inference_mode():
            expected = model(torch.tensor([text])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_a_gguf_file_gives_the_states_of_the_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("relative_attention_num_buckets", "relative_attention_max_distance"):
        monkeypatch.delitem(SIZES, key)  # such files name no distance: it is 128
    build("flan-t5", "EncoderModel", tmp_path)
    expected = TorchEncoder(*open_folder(tmp_path)).states(texts())
    for found, wanted in zip(
        TorchEncoder(*open_gguf(write_gguf(tmp_path))).states(texts()), expected, strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
