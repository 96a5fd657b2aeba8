"""Encoder families: folders and GGUF files of tiny random weights against the reference code."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from encoder_models import ENCODERS, TinyEncoder, V, save_gguf
from expert_models import open_folder, open_gguf
from pentad.execution.native.encoder import NativeEncoder
from pentad.execution.torch.encoder import TorchEncoder

TOLERANCE = 1e-3
LENGTHS = (7, 1, 128, 40, 7)
Saved = tuple[TinyEncoder, Any, pathlib.Path]


@pytest.fixture(scope="module", params=ENCODERS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    tiny, folder = ENCODERS[request.param], tmp_path_factory.mktemp(request.param)
    model = tiny.build()
    model.save_pretrained(folder)
    return tiny, model, folder


def _texts() -> list[list[int]]:
    """Without the ids that mean padding to some of the models."""
    rng = np.random.default_rng(3)
    return [rng.integers(4, V, size).tolist() for size in LENGTHS]


def _states(model: Any, text: list[int]) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = model(torch.tensor([text])).last_hidden_state[0].numpy()
        return found


@pytest.mark.row("het-arch-bert", "mechanism")
def test_hidden_states_of_a_folder_equal_the_reference(saved: Saved) -> None:
    _, model, folder = saved
    texts = _texts()
    for text, found in zip(texts, TorchEncoder(*open_folder(folder)).states(texts), strict=True):
        expected = _states(model, text)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_hidden_states_of_a_gguf_file_are_those_of_the_folder(saved: Saved) -> None:
    tiny, model, folder = saved
    if tiny.arch is None:
        pytest.skip("GGUF has no such architecture")
    path, texts = save_gguf(model, tiny, folder), _texts()
    expected = TorchEncoder(*open_folder(folder)).states(texts)
    for found, wanted in zip(TorchEncoder(*open_gguf(path)).states(texts), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


def test_every_parameter_is_counted(saved: Saved) -> None:
    _, model, folder = saved
    pooler = sum(v.numel() for name, v in model.named_parameters() if name.startswith("pooler."))
    published = sum(value.numel() for value in model.parameters()) - pooler
    assert open_folder(folder)[0].parameters == published


REFUSED = {
    "mpnet": "its scores have relative biases",
    "modernbert": "one of its layers attends without a norm",
    "nomic-bert": "its positions are not learned",
}


@pytest.mark.parametrize("name", ENCODERS)
def test_the_kernels_compute_a_family_or_say_what_they_lack(name: str, tmp_path: pathlib.Path) -> None:
    ENCODERS[name].build(initializer_range=0.1).save_pretrained(tmp_path)  # the kernels quantize
    spec, weights = open_folder(tmp_path)
    assert NativeEncoder.supports(spec, weights) == REFUSED.get(name)
    if name not in REFUSED:
        texts = _texts()
        found, expected = (
            NativeEncoder(spec, weights).encode(texts),
            TorchEncoder(spec, weights).encode(texts),
        )
        assert (found * expected).sum(axis=1).min() > 0.999
