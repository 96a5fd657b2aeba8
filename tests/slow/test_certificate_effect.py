"""Certificates of variants of SmolLM2: the floor refuses a planted bad one and passes a good one."""

from __future__ import annotations

import os
import pathlib

import pytest

from evidence.plugin import Measure
from pentad.application.cli.agents import serving_only
from pentad.application.config import Settings
from pentad.application.measuring import Request, certificate_of
from pentad.application.quality_floor import check_floor
from pentad.choice import Choice
from pentad.errors import Incompatible
from pentad.model.certification.certificate import Certificate
from pentad.model.compression import compress
from pentad.model.store import ModelStore
from tokenizer_texts import wikitext

pytestmark = pytest.mark.slow

FLOOR = {"kl": 0.05, "perplexity-ratio": 1.02}


def certified(
    store: ModelStore, settings: Settings, name: str, method: str, text: pathlib.Path
) -> Certificate:
    compress(store, "smol", name, [Choice.of(method)], tell=lambda *_: None)
    asked = Request(
        model=name,
        text=text,
        windows=8,
        window_tokens=128,
        metrics=("kl", "perplexity-ratio", "top1", "size"),
    )
    return certificate_of(settings, asked, serving_only, lambda *_: None)[0]


def test_a_good_variant_is_served_and_a_planted_bad_one_is_refused(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    store = ModelStore(tmp_path / "home")
    # The store's files have no suffix of their own, so the model is linked under one.
    os.symlink(smollm2_path.resolve(), tmp_path / "smol.gguf")
    store.pull(str(tmp_path / "smol.gguf"), name="smol")
    text = tmp_path / "text.txt"
    text.write_text("".join(wikitext()))
    settings = Settings(home=tmp_path / "home", quality_floor=FLOOR)
    good = certified(store, settings, "good", "round-to-nearest:format=Q8_0", text)
    bad = certified(store, settings, "bad", "magnitude:sparsity=0.5", text)
    measured("KL of the good one", good.measured["kl"].value, at_most=FLOOR["kl"], unit="nats")
    measured("KL of the bad one", bad.measured["kl"].value, at_least=FLOOR["kl"], unit="nats")
    measured("perplexity ratio of the bad one", bad.measured["perplexity-ratio"].value, at_least=1.02)
    check_floor(store, store.find("good"), settings)
    with pytest.raises(Incompatible, match=r"'bad' is below the quality floor: kl is .*at most 0\.05"):
        check_floor(store, store.find("bad"), settings)
