"""What `pentad show` tells: counts that follow from the geometry, where the model fits, how fast it is."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from encoder_models import ENCODERS, write_tokenizer
from model_fixtures import VOCAB, tiny_llama_gguf
from native_support import HERE
from pentad.application.config import EngineSettings, Settings
from pentad.application.model_summary import model_summary
from pentad.model.in_place import in_place
from pentad.model.loading import open_model
from pentad.resource import profile as profiles


@pytest.fixture
def tiny(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_llama_gguf())
    return path


def summary(path: pathlib.Path, home: pathlib.Path, **settings: Any) -> dict[str, Any]:
    files = open_model(path)
    try:
        return model_summary(in_place(path), files, Settings(home=home, **settings))
    finally:
        files.close()


def test_counts_follow_from_the_geometry(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shown = summary(tiny, tmp_path)
    layer = 32 * (32 + 16 + 16 + 32) + 3 * 32 * shown["spec"]["layers"]["0-1"]["feed_forward"]["width"]
    matrices = 2 * layer + VOCAB * 32
    assert shown["parameters"] > matrices
    assert shown["flops_per_token"] >= 2 * matrices
    assert shown["kv_bytes_per_token_f32"] == 2 * 2 * 2 * 8 * 4, "layers, keys and values, heads, sizes"
    assert list(shown["storage"]) == ["F32"]
    assert shown["stored_as"] == "F32 100%"
    assert shown["speech"]["chat_template"] is True
    assert shown["here"]["memory_bytes"] > tiny.stat().st_size


def test_a_model_that_does_not_fit_is_told_with_the_reason(
    tiny: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    here = summary(tiny, tmp_path, engine=EngineSettings(kv_bytes=1 << 50))["here"]
    assert here["fits"] is False
    assert here["kv_cache_bytes"] == 1 << 50
    assert here["memory_bytes"] > here["memory_budget_bytes"]


def test_the_speed_is_predicted_from_the_machines_profile_alone(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    engine = EngineSettings(kernels="portable")
    assert "pentad profile" in summary(smollm2_path, tmp_path, engine=engine)["here"]["trouble"]
    Settings(home=tmp_path).profile_path.parent.mkdir(parents=True, exist_ok=True)
    Settings(home=tmp_path).profile_path.write_text("{}")
    broken = summary(smollm2_path, tmp_path, engine=engine)["here"]
    assert broken["fits"] is True, "a broken profile says nothing of memory"
    assert "no speed is predicted" in broken["trouble"]
    profiles.save(profiles.published()[0], Settings(home=tmp_path).profile_path)
    here = summary(smollm2_path, tmp_path, engine=engine)["here"]
    assert here["predicted_prefill_tokens_per_s"] > here["predicted_decode_tokens_per_s"] > 0


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
def test_native_weights_are_told_with_what_their_form_costs(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shown = summary(smollm2_path, tmp_path, engine=EngineSettings(kernels="portable"))
    assert shown["stored_as"].startswith(next(iter(shown["storage"])))
    forms = shown["here"]["native_forms"]
    assert forms.keys() <= shown["storage"].keys()
    assert forms["Q4_1"] == {"bits": 5.0, "keeps_codes": True, "error": 0.0}
    assert "F32" not in forms, "norms are kept as they are"
    asked = EngineSettings(kernels="torch")
    assert "native_forms" not in summary(smollm2_path, tmp_path, engine=asked)["here"]


@pytest.mark.parametrize(
    ("does", "sizes", "native"),
    [("Model", {}, bool(HERE)), ("ForSequenceClassification", {"num_labels": 1}, False)],
    ids=["embeds", "scores"],
)
def test_encoders_are_told_by_what_they_do(
    tmp_path: pathlib.Path, does: str, sizes: dict[str, int], native: bool
) -> None:
    ENCODERS["bert"].build(does, **sizes).save_pretrained(tmp_path / "bert")
    write_tokenizer(tmp_path / "bert")
    here = summary(tmp_path / "bert", tmp_path)["here"]
    assert here["fits"] is True
    assert ("native_forms" in here) is native
    assert "kv_cache_bytes" not in here


def test_adapters_of_another_model_change_nothing(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    plain = summary(tiny, tmp_path)["here"]
    other = EngineSettings(adapters={"other:a": str(tmp_path / "none")})
    assert summary(tiny, tmp_path, engine=other)["here"]["computed_by"] == plain["computed_by"]
