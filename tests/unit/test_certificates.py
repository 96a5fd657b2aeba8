"""Certificates: what is measured, that it can be checked again, and that whatever was changed is noticed."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from cli_support import Pentad
from model_fixtures import tiny_llama_gguf
from pentad import registry
from pentad.application.cli.agents import serving_only
from pentad.application.config import Settings
from pentad.application.measuring import Request, certificate_of
from pentad.choice import Choice, build
from pentad.errors import BadModelFile
from pentad.execution.batch import RaggedBatch
from pentad.model.certification.base import Measured, Metric, Row
from pentad.model.certification.certificate import (
    Certificate,
    certificate_path,
    read_certificate,
    sealed,
    write_certificate,
)
from pentad.model.certification.text_probe import TextProbe
from pentad.model.compression import compress
from pentad.model.intervals import paired_bootstrap
from pentad.model.store import ModelStore

TEXT = " ".join(f"hello world {i * i * 7919 % 10007}, and hello again." for i in range(60))
ON_TEXT = ("perplexity", "perplexity-ratio", "kl", "top1", "size")


class Killed(BaseException):
    """As if the process had been killed here."""


@pytest.fixture
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """A tiny model and one rounded from it, in the home that the command line takes."""
    monkeypatch.setenv("PENTAD_HOME", str(tmp_path / "home"))
    store = ModelStore(tmp_path / "home")
    (tmp_path / "tiny.gguf").write_bytes(tiny_llama_gguf())
    (tmp_path / "text.txt").write_text(TEXT)
    store.pull(str(tmp_path / "tiny.gguf"), name="tiny")
    derive(store, "small", "round-to-nearest:format=Q4_0")
    return store


def derive(store: ModelStore, name: str, method: str) -> None:
    compress(store, "tiny", name, [Choice.of(method)], tell=lambda done, total: None)


def request(tmp_path: pathlib.Path, *metrics: str, model: str = "small") -> Request:
    return Request(
        model=model, text=tmp_path / "text.txt", windows=4, window_tokens=24, metrics=metrics or ON_TEXT
    )


def certify(
    store: ModelStore, asked: Request, *, stop: int | None = None, **engine: Any
) -> tuple[Certificate, pathlib.Path]:
    def tell(done: int, total: int) -> None:
        if done == stop:
            raise Killed

    settings = Settings(home=store.root.parent)
    settings = settings.model_copy(
        update={"engine": settings.engine.model_copy(update={"kernels": "torch", **engine})}
    )
    return certificate_of(settings, asked, serving_only, tell)


def test_the_certificate_of_a_copy_says_that_nothing_was_lost(
    store: ModelStore, tmp_path: pathlib.Path
) -> None:
    derive(store, "copy", "round-to-nearest:format=F32")
    found, path = certify(store, request(tmp_path, model="copy"))
    assert found.measured["kl"].value == found.measured["kl"].high == 0.0
    assert found.measured["perplexity-ratio"].value == 1.0
    assert found.measured["top1"].low == 1.0
    assert found.measured["perplexity"].value == found.measured["perplexity"].source
    assert read_certificate(store.folders, store.digest(store.find("copy")), {}) == found
    assert path.read_bytes().startswith(b'{"command":"pentad certify copy --text ')


def test_what_was_lost_is_told_with_its_interval_beside_the_source(
    store: ModelStore, tmp_path: pathlib.Path
) -> None:
    found, _ = certify(store, request(tmp_path))
    kl, size = found.measured["kl"], found.measured["size"]
    assert 0 < kl.low < kl.value < kl.high
    assert (kl.count, kl.interval) == (4, "95%, paired bootstrap over windows")
    assert size.source is not None
    assert size.value < size.source / 2
    assert (found.source, found.source_sha256) == ("tiny", store.digest(store.find("tiny")))
    assert set(found.data) == {"text"}


@dataclass
class Scripted:
    """A runner that says what it is told to."""

    rows: np.ndarray
    block_size: int = 16
    batches: list[RaggedBatch] = field(default_factory=list)

    def logits(self, batch: RaggedBatch) -> np.ndarray:
        self.batches.append(batch)
        return self.rows[batch.positions]


@dataclass
class Saying:
    rows: np.ndarray

    def runner(self) -> Scripted:
        return Scripted(self.rows)


@dataclass
class Two:
    source: Saying
    derived: Saying
    windows: list[list[int]]


def test_divergence_likelihood_and_agreement_are_those_of_the_definitions() -> None:
    rng = np.random.default_rng(0)
    wanted, given = (rng.normal(size=(80, 7)).astype(np.float32) for _ in range(2))
    tokens = rng.integers(0, 7, 80).tolist()
    row = TextProbe().measure(Two(Saying(wanted), Saying(given), [tokens]), 0)  # type: ignore[arg-type]
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (wanted.astype(float), given.astype(float)))
    p, q, targets = p[:-1], q[:-1], np.array(tokens[1:])
    assert row["tokens"] == 79
    assert row["kl"] == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)
    assert row["nll"] == pytest.approx(-np.log(q[np.arange(79), targets]).sum(), rel=1e-5)
    assert row["source_nll"] == pytest.approx(-np.log(p[np.arange(79), targets]).sum(), rel=1e-5)
    assert row["agreed"] == (p.argmax(-1) == q.argmax(-1)).sum()


def test_killed_at_any_piece_it_goes_on_and_says_the_same(
    store: ModelStore, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = certify(store, request(tmp_path))
    pieces: list[int] = []
    plain = TextProbe.measure
    monkeypatch.setattr(
        TextProbe, "measure", lambda self, bench, unit: pieces.append(unit) or plain(self, bench, unit)
    )
    for stop in range(6):
        with pytest.raises(Killed):
            certify(store, request(tmp_path), stop=stop)
    again, _ = certify(store, request(tmp_path))
    assert pieces == [0, 1, 2, 3], "no piece is measured twice"
    assert again == whole
    assert not list((store.root / "partial").iterdir()), "nothing is left behind"


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"kl":{"basis":"","count":4', '"kl":{"basis":"","count":9'),
        lambda text: text.replace('"model":"small"', '"model":"large"'),
        lambda text: text.replace('{"command"', '{ "command"'),
        lambda text: text[:-20],
    ],
)
def test_a_certificate_edited_by_hand_is_noticed(
    store: ModelStore, tmp_path: pathlib.Path, edit: Any
) -> None:
    _, path = certify(store, request(tmp_path))
    changed = edit(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(BadModelFile, match="pentad certify"):
        read_certificate(store.folders, store.digest(store.find("small")), {})


def test_a_certificate_beside_other_bytes_is_noticed(store: ModelStore, tmp_path: pathlib.Path) -> None:
    _, path = certify(store, request(tmp_path))
    derive(store, "worse", "magnitude:sparsity=0.9")
    digest = store.digest(store.find("worse"))
    certificate_path(store.folders, digest, {}).write_bytes(path.read_bytes())
    with pytest.raises(BadModelFile, match=r"is that of another model \('small'\)"):
        read_certificate(store.folders, digest, {})


def test_one_sealed_anew_reads_but_a_check_finds_it_out(
    store: ModelStore, tmp_path: pathlib.Path, pentad_: Pentad
) -> None:
    found, _ = certify(store, request(tmp_path))
    held = pentad_("certify", "small", "--check", "--kernels", "torch", "--json")
    assert held.status == 0, held.err
    assert {each["verdict"] for each in json.loads(held.out)["metrics"]} == {"same"}
    better = replace(found.measured["kl"], value=0.0, low=0.0, high=0.0)
    write_certificate(store.folders, sealed(replace(found, measured={**found.measured, "kl": better})))
    caught = pentad_("certify", "small", "--check", "--kernels", "torch", "--json")
    assert caught.status == 1
    verdicts = {each["metric"]: each["verdict"] for each in json.loads(caught.out)["metrics"]}
    assert verdicts == dict.fromkeys(ON_TEXT, "same") | {"kl": "differs"}


def test_a_check_notices_another_text_and_other_bytes(
    store: ModelStore, tmp_path: pathlib.Path, pentad_: Pentad
) -> None:
    certify(store, request(tmp_path))
    (tmp_path / "text.txt").write_text(TEXT.upper())
    other = pentad_("certify", "small", "--check", "--kernels", "torch")
    assert other.status != 0
    assert "the certificate was measured on text data with SHA-256" in other.err
    blob = store.find("small").path.resolve()
    blob.chmod(0o600)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    changed = pentad_("certify", "small", "--check", "--kernels", "torch")
    assert changed.status != 0
    assert "has other bytes than it was stored with" in changed.err


def test_a_removed_model_takes_its_certificates_along(store: ModelStore, tmp_path: pathlib.Path) -> None:
    _, path = certify(store, request(tmp_path, "size"))
    store.remove("small")
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("small",), "set --text to a text file"),
        (("tiny",), "give --source MODEL, or settings of the KV cache"),
        (
            ("small", "--text", "text.txt", "--window-tokens", "24", "--windows", "5000"),
            "give a longer text or set --windows lower",
        ),
        (("small", "--text", "text.txt", "--window-tokens", "100000"), "set --window-tokens lower"),
        (("small", "--metric", "nobody"), "unknown metric 'nobody'"),
        (("small", "--metric", "recall:context_tokens=100000"), "set --metric recall:context_tokens="),
        (("small", "--metric", "gsm8k"), "give --data FOLDER"),
        (("small", "--check"), "pentad certify small makes one"),
        (("small", "--text", "text.txt", "--kv-policy", "sinks"), "leave --kv-policy out"),
    ],
)
def test_what_cannot_be_certified_is_refused_with_the_remedy(
    store: ModelStore, pentad_: Pentad, arguments: tuple[str, ...], message: str
) -> None:
    refused = pentad_("certify", *arguments)
    assert refused.status != 0
    assert message in refused.err


def test_the_table_shows_every_metric_with_its_source(store: ModelStore, pentad_: Pentad) -> None:
    on_text = ("--text", "text.txt", "--windows", "2", "--window-tokens", "16", "--kernels", "torch")
    timed = pentad_("certify", "small", *on_text, "--metric", "decode-speed:turns=1", "--metric", "joules")
    assert timed.status != 0
    assert "set --metric to others than the timed ones" in timed.err, "its context holds 64 tokens"
    shown = pentad_("certify", "small", *on_text, "--metric", "kl", "--metric", "size")
    assert shown.status == 0, shown.err
    lines = shown.out.splitlines()
    assert [line.split()[0] for line in lines] == ["metric", "kl", "size"]
    assert "certificate" in shown.err


def rows_of(metric: Metric) -> list[Row]:
    """Rows with every number that a probe of ours gives."""
    rng = np.random.default_rng(1)

    def row() -> Mapping[str, float]:
        one = float(rng.integers(0, 2))
        return {
            "nll": 30 + rng.random(),
            "kl": rng.random(),
            "agreed": 7.0 + one,
            "source_nll": 29.0,
            "tokens": 10.0,
            "bytes": 5.0,
            "source_bytes": 9.0,
            "asked": 4.0,
            "recalled": 3.0,
            "source_recalled": 4.0,
            "solved": one,
            "source_solved": 1.0,
            "decode": 5 + one,
            "source_decode": 4.0,
            "prefill": 90 + one,
            "source_prefill": 80.0,
            "joules": 0.4,
            "source_joules": 0.5,
        }

    return [row() for _ in range(1 if metric.name == "size" else 12)]


@pytest.mark.parametrize("name", registry.known("metric"))
class TestEveryMetric:
    def measured(self, name: str) -> Iterator[Measured]:
        metric: Metric = build("metric", Choice(name=name))
        for _ in range(2):
            yield metric.value(rows_of(metric))

    def test_equal_rows_give_equal_values_within_their_interval(self, name: str) -> None:
        one, two = self.measured(name)
        assert one == two
        assert one.low <= one.value <= one.high
        assert one.count >= 1
        assert all(map(math.isfinite, (one.value, one.low, one.high)))

    def test_says_what_its_interval_is_and_stands_beside_the_source(self, name: str) -> None:
        found, _ = self.measured(name)
        assert found.interval == "exact" or found.interval.startswith("95%, ")
        assert found.source is not None

    def test_names_its_work_by_all_that_decides_it(self, name: str) -> None:
        metric: Metric = build("metric", Choice(name=name))
        assert metric.better in ("lower", "higher")
        assert metric.probe.key == build("metric", Choice(name=name)).probe.key


def test_the_paired_bootstrap_is_narrower_than_what_it_pairs() -> None:
    rng = np.random.default_rng(2)
    hardness = rng.normal(size=60)
    pairs = [
        (float(h), float(h + 0.1 + 0.01 * e)) for h, e in zip(hardness, rng.normal(size=60), strict=True)
    ]
    gap = paired_bootstrap(pairs, lambda some: float(np.mean([b - a for a, b in some])))
    alone = paired_bootstrap(pairs, lambda some: float(np.mean([b for _, b in some])))
    assert gap[0] < 0.1 < gap[1] + 0.005
    assert gap[1] - gap[0] < (alone[1] - alone[0]) / 10
