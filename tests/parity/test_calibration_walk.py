"""What the walk taps is what enters the matrices of the reference; folders written are read by it."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
import transformers

from pentad.choice import Choice
from pentad.execution.torch import gradients
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.torch.taps import LayerWalk
from pentad.model.compression import CalibrationText, compress
from pentad.model.loading import open_model
from pentad.model.store import ModelStore
from ragged_batches import whole
from torch_folders import write_folder

TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
PARTS = {
    "q": "self_attn.q_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_folder(tmp_path_factory.mktemp("tiny"), transformers.LlamaConfig(**TINY))


def test_every_matrix_is_tapped_as_the_reference_feeds_it(folder: pathlib.Path) -> None:
    files = open_model(folder)
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 512, size).tolist() for size in (40, 40, 17)]
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in reference.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0][0].detach())
            )
    with torch.inference_mode():
        for text in texts:
            reference(torch.tensor([text]))
    walk = LayerWalk(files.spec, files.weights, texts)
    for layer in range(3):
        taps = walk.taps(layer, files.weights, second_moments=True)
        for part, theirs in PARTS.items():
            entered = torch.cat(seen[f"model.layers.{layer}.{theirs}"]).double().numpy()
            tap = taps[f"layers.{layer}.{part}"]
            assert tap.rows == 97
            np.testing.assert_allclose(tap.square_sum, (entered**2).sum(0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(tap.absolute_sum, np.abs(entered).sum(0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(tap.gram, entered.T @ entered, rtol=1e-3, atol=1e-3)
        walk.advance(layer, files.spec, files.weights)


@pytest.mark.row("prune-gblm", "mechanism")
def test_gradients_are_those_of_the_reference_window_by_window(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "_STATE_BYTES", 1)  # one window at a time
    files = open_model(folder)
    texts = [np.random.default_rng(i).integers(0, 512, size).tolist() for i, size in enumerate((40, 17))]
    walk = LayerWalk(files.spec, files.weights, texts)
    found = walk.gradients(tmp_path / "gradients")
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    totals: dict[str, np.ndarray] = {}
    squares: dict[str, np.ndarray] = {}
    for text in texts:
        reference.zero_grad()
        tokens = torch.tensor([text])
        reference(tokens, labels=tokens).loss.backward()
        for name, parameter in reference.named_parameters():
            slope = parameter.grad.double().numpy()
            totals[name] = totals.get(name, 0) + slope
            squares[name] = squares.get(name, 0) + slope**2
    for layer in range(3):
        layers = found.of(layer)
        assert {name.rpartition(".")[2] for name in layers} == {"q", "k", "v", "o", "gate", "up", "down"}
        for part, theirs in PARTS.items():
            gradient, name = layers[f"layers.{layer}.{part}"], f"model.layers.{layer}.{theirs}.weight"
            assert gradient.windows == 2
            np.testing.assert_allclose(gradient.total, totals[name], rtol=2e-3, atol=1e-6)
            np.testing.assert_allclose(gradient.square_sum, squares[name], rtol=4e-3, atol=1e-9)
    assert walk.gradients(tmp_path / "gradients").of(0).keys() == found.of(0).keys(), "found again"


@pytest.mark.parametrize(
    "method",
    [
        "wanda:format=F32",
        "kv-pooling:kv_heads=1",
        "round-to-nearest:format=F16",
        "gblm:format=F32",
        "mixed-sparsity:format=F32",
    ],
)
def test_a_compressed_folder_computes_the_same_in_the_reference_and_here(
    folder: pathlib.Path, tmp_path: pathlib.Path, method: str
) -> None:
    store = ModelStore(tmp_path, catalogue={})
    store.pull(str(folder), name="tiny")
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog again and again " * 60)
    calibration = CalibrationText(path=text, windows=2, window_tokens=32)
    made, _ = compress(
        store, "tiny", "small", [Choice.of(method)], calibration=calibration, tell=lambda done, total: None
    )
    reference = transformers.AutoModelForCausalLM.from_pretrained(made.path, dtype=torch.float32)

    files = open_model(made.path)
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=8, dtype="float32")
    tokens = np.random.default_rng(1).integers(0, 512, 50).tolist()
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens])).logits[0].numpy()
    np.testing.assert_allclose(runner.logits(whole(tokens)), expected, atol=1e-3)
    runner.close()
