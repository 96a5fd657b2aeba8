"""OpenVINO's state is kept while a text goes on, else it begins anew; conversion happens once."""

from __future__ import annotations

import pathlib
import sys
import types
from typing import Any

import numpy as np
import pytest

from pentad.errors import BackendFailed, MissingExtra
from pentad.model.backends.openvino_model import PREFILL_CHUNK_TOKENS, OpenVinoModel, converted

VOCABULARY = 16


class Infer:
    """A compiled model whose next token is the sum of all it has read, modulo the vocabulary."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.calls: list[int] = []

    def reset_state(self) -> None:
        self.read = []

    def infer(self, inputs: dict[str, Any]) -> list[Any]:
        ids = inputs["input_ids"][0].tolist()
        assert inputs["position_ids"][0].tolist() == list(range(len(self.read), len(self.read) + len(ids)))
        self.read += ids
        assert inputs["attention_mask"].shape == (1, len(self.read))
        self.calls.append(len(ids))
        logits = np.zeros((1, len(ids), VOCABULARY), np.float32)
        logits[0, -1, sum(self.read) % VOCABULARY] = 1
        return [logits]


class Compiled:
    def __init__(self, infer: Infer) -> None:
        names = ("input_ids", "attention_mask", "position_ids", "beam_idx")
        self.inputs = [types.SimpleNamespace(names={name}) for name in names]
        self.create_infer_request = lambda: infer


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> tuple[Infer, list[str]]:
    """Doubles of both packages; what was converted."""
    infer, made = Infer(), []

    def pipeline(path: str, device: str, *, enable_save_ov_model: bool) -> None:
        assert device == "CPU"
        assert enable_save_ov_model
        made.append(path)
        if "broken" in pathlib.Path(path).read_text():
            raise RuntimeError("no such architecture")
        (pathlib.Path(path).parent / "openvino_model.xml").write_text("<net/>")

    core = types.SimpleNamespace(compile_model=lambda path, device, options: Compiled(infer))
    monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(Core=lambda: core))
    monkeypatch.setitem(sys.modules, "openvino_genai", types.SimpleNamespace(LLMPipeline=pipeline))
    return infer, made


def file(folder: pathlib.Path, text: str = "GGUF") -> pathlib.Path:
    path = folder / "m.gguf"
    path.write_text(text)
    return path


@pytest.mark.row("be-openvino", "mechanism")
def test_only_what_is_new_of_a_text_is_computed(
    tmp_path: pathlib.Path, installed: tuple[Infer, list[str]]
) -> None:
    infer, _ = installed
    model = OpenVinoModel(file(tmp_path), tmp_path / "kept")

    def next_token(*tokens: int) -> tuple[int, int]:
        found = model.next_logits(tokens, lambda: False)
        assert found is not None
        return int(found[0].argmax()), found[1]

    assert next_token(1, 2, 3) == (6, 0)
    assert next_token(1, 2, 3, 6) == (12, 3)
    assert next_token(1, 5) == (6, 0), "another text begins anew"
    assert next_token(1, 5) == (6, 0), "so does the same one: its last logits are wanted"
    assert infer.calls == [3, 1, 2, 2]
    long = [1] * (PREFILL_CHUNK_TOKENS + 1)
    assert next_token(*long) == (len(long) % VOCABULARY, 0)
    assert infer.calls[-2:] == [PREFILL_CHUNK_TOKENS, 1]
    assert model.next_logits([3, 4], lambda: True) is None


@pytest.mark.row("be-openvino", "mechanism")
def test_a_file_is_converted_once_and_again_when_it_has_changed(
    tmp_path: pathlib.Path, installed: tuple[Infer, list[str]]
) -> None:
    _, made = installed
    first = converted(file(tmp_path), tmp_path / "kept")
    assert converted(tmp_path / "m.gguf", tmp_path / "kept") == first
    assert len(made) == 1
    assert converted(file(tmp_path, "GGUF, another"), tmp_path / "kept") != first
    with pytest.raises(BackendFailed, match="no such architecture"):
        converted(file(tmp_path, "broken"), tmp_path / "kept")


def test_without_the_packages_the_remedy_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    with pytest.raises(MissingExtra) as caught:
        converted(file(tmp_path), tmp_path / "kept")
    assert caught.value.hint == "pip install openvino-genai"
