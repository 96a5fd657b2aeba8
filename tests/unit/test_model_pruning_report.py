"""What pruning took: shares by layer, the capability that broke, and the tokens that tell of it."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from cli_support import Pentad
from model_fixtures import tiny_llama_gguf
from pentad.choice import Choice
from pentad.model.compression import compress
from pentad.model.loading import open_model
from pentad.model.pruning_report import Losses, matrix_changes, text_changes
from pentad.model.store import ModelStore

DOMAINS = ("law", "code", "songs", "recipes", "news")


def model(rises: dict[int, float], seed: int) -> Losses:
    """Losses of about 3 nats, more where a token's domain was lost: tokens 100 i belong to domain i."""
    rng = np.random.default_rng(seed)

    def losses(window: object) -> np.ndarray:
        tokens = np.asarray(window)[1:]
        more = np.array([rises.get(int(token) // 100, 0.0) for token in tokens])
        return np.asarray(3 + more + rng.normal(scale=0.5, size=len(tokens)))

    return losses


def windows(seed: int) -> dict[str, list[list[int]]]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(i * 100, i * 100 + 20, (8, 64)).tolist() for i, name in enumerate(DOMAINS)}


@pytest.mark.row("prune-explain", "mechanism")
@pytest.mark.parametrize("trial", range(10))
def test_the_domain_that_broke_is_flagged_and_no_other(trial: int) -> None:
    broken = trial % len(DOMAINS)
    rises = {i: 0.9 if i == broken else 0.3 for i in range(len(DOMAINS))}
    texts, tokens = text_changes(windows(trial), model({}, trial), model(rises, trial + 50))
    assert [text.name for text in texts if text.flagged] == [DOMAINS[broken]]
    assert all(token.token // 100 == broken for token in tokens)
    assert texts[broken].low < texts[broken].rise < texts[broken].high


@pytest.mark.row("prune-explain", "mechanism")
def test_nothing_is_flagged_where_all_rose_alike_or_one_text_is_alone() -> None:
    rises = dict.fromkeys(range(len(DOMAINS)), 0.5)
    texts, _ = text_changes(windows(3), model({}, 3), model(rises, 4))
    assert not any(text.flagged for text in texts)
    alone = {"law": windows(3)["law"]}
    assert not text_changes(alone, model({}, 3), model(rises, 4))[0][0].flagged


@pytest.fixture
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setenv("PENTAD_HOME", str(tmp_path / "home"))
    store = ModelStore(tmp_path / "home")
    (tmp_path / "tiny.gguf").write_bytes(tiny_llama_gguf())
    store.pull(str(tmp_path / "tiny.gguf"), name="tiny")
    return store


def derive(store: ModelStore, method: str) -> None:
    compress(store, "tiny", "small", [Choice.of(method)], tell=lambda done, total: None)


@pytest.mark.row("prune-explain", "mechanism")
def test_each_matrix_tells_how_much_went_and_how_much_that_was_worth(store: ModelStore) -> None:
    derive(store, "magnitude:sparsity=0.25,format=F32")
    source, small = (open_model(store.find(name).path).weights for name in ("tiny", "small"))
    found = list(matrix_changes(source, small, 2))
    assert len(found) == 14
    for change in found:
        assert change.removed == pytest.approx(0.25)
        assert 0 < change.energy < 0.03, "the smallest are worth least"


@pytest.mark.row("prune-explain", "mechanism")
def test_the_verb_tells_layers_texts_and_tokens(
    store: ModelStore, pentad_: Pentad, tmp_path: pathlib.Path
) -> None:
    derive(store, "drop-layers:layers=[0]")
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(f"hello world {name} " * 60)
    texts = [word for name in ("one", "two") for word in ("--text", f"{name}={tmp_path / name}.txt")]
    sizes = ("--windows", "2", "--window-tokens", "24", "--kernels", "torch")
    told = pentad_("pruned", "small", *texts, *sizes, "--json")
    assert told.status == 0, told.err
    report = json.loads(told.out)
    left_out = [each["name"] for each in report["matrices"] if each["left_out"]]
    assert left_out == [f"layers.0.{part}" for part in ("q", "k", "v", "o", "gate", "up", "down")]
    assert all(each["removed"] == 0 for each in report["matrices"] if not each["left_out"])
    assert [each["name"] for each in report["texts"]] == ["one", "two"]
    assert pentad_("pruned", "small", *texts, *sizes).status == 0
    wrong = pentad_("pruned", "small", "--text", "one.txt")
    assert wrong.status == 2
    assert "write --text NAME=FILE" in wrong.err
