"""Search for a target and comparison of what it found, on a tiny model."""

from __future__ import annotations

import json
import pathlib

import pytest
from test_certificates import certify, derive, request, store

from cli_support import Pentad
from pentad.application.target_search import Target, singles, stage
from pentad.choice import Choice
from pentad.errors import BadModelFile, InvalidRequest
from pentad.model.certification.certificate import read_certificate
from pentad.model.store import ModelStore

__all__ = ["store"]


def searched(pentad_: Pentad, *arguments: str) -> dict[str, object]:
    done = pentad_(
        "compress", "tiny", "--out", "best", "--text", "text.txt", "--json", *arguments,
        "--method", "round-to-nearest:format=Q8_0", "--method", "round-to-nearest:format=Q4_0",
        "--method", "magnitude:sparsity=0.9",
    )  # fmt: skip
    assert done.status == 0, done.err
    found: dict[str, object] = json.loads(done.out)
    return found


def test_the_best_within_the_target_is_made_and_certified(
    store: ModelStore, tmp_path: pathlib.Path, pentad_: Pentad, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text((tmp_path / "text.txt").read_text() * 3)
    monkeypatch.setenv("PENTAD_KERNELS", "torch")
    small = searched(pentad_, "--target", "size=0.99")
    kl = {t["methods"][0]: t["certificate"]["measured"]["kl"]["value"] for t in small["tried"][:3]}  # type: ignore
    assert min(kl.values()) == kl['round-to-nearest:format="Q8_0"']
    assert small["certificate"]["measured"]["kl"]["value"] == min(kl.values())  # type: ignore[index]
    made = store.find("best")
    kept = read_certificate(store.folders, store.digest(made), {})
    assert kept is not None
    assert kept.sha256 == small["certificate"]["sha256"]  # type: ignore[index]
    assert sorted(each.name for each in store.list()) == ["best", "small", "tiny"], "what was tried is gone"
    last = [t["methods"] for t in small["tried"][3:]]  # type: ignore
    assert [[one.partition(":")[0] for one in pair] for pair in last] == [
        ["magnitude", "round-to-nearest"]
    ] * 2
    assert [len(t["methods"]) for t in small["tried"]] == [1, 1, 1, 2, 2], "pruned, then rounded"  # type: ignore
    loose = searched(pentad_, "--target", f"quality={max(kl.values()) * 2}")
    sizes = [t["certificate"]["measured"]["size"]["value"] for t in loose["tried"] if t["reached"]]  # type: ignore
    assert loose["certificate"]["measured"]["size"]["value"] == min(sizes)  # type: ignore[index]
    impossible = pentad_(
        "compress", "tiny", "--out", "none", "--text", "text.txt", "--target", "size=0.01",
        "--method", "round-to-nearest:format=Q4_0",
    )  # fmt: skip
    assert impossible.status == 3
    assert "nothing of what was tried is within size=0.01" in impossible.err


def test_what_needs_a_text_is_left_out_without_one_and_every_method_has_its_turn() -> None:
    found = singles([], calibrated=False)
    assert Choice(name="magnitude", options={"sparsity": 0.5}) in found
    assert "wanda" not in {each.name for each in found}
    everything = singles([], calibrated=True)
    names = [each.name for each in everything]
    assert "wanda" in names
    assert len(set(names[: len(set(names))])) == len(set(names)), "no second setting before another's first"
    assert {stage(each) for each in everything} >= {"prune", "quantize"}


@pytest.mark.parametrize(
    ("text", "kind", "bound"), [("size=60MB", "size", 60e6), ("speed=1.3", "speed", 1.3)]
)
def test_a_target_is_read(text: str, kind: str, bound: float) -> None:
    assert Target.of(text) == Target(kind=kind, bound=bound)


@pytest.mark.parametrize("text", ["size", "size=no", "beauty=3", "quality=-1", "speed=inf", ""])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"write size=60MB"):
        Target.of(text)


def test_a_search_needs_a_text(store: ModelStore, pentad_: Pentad) -> None:
    refused = pentad_("compress", "tiny", "--out", "best", "--target", "size=0.5")
    assert refused.status == 2
    assert "set --text to a text file" in refused.err


def test_two_models_are_compared_by_their_certificates(
    store: ModelStore, tmp_path: pathlib.Path, pentad_: Pentad
) -> None:
    derive(store, "ruined", "magnitude:sparsity=0.95")
    for name in ("small", "ruined"):
        certify(store, request(tmp_path, model=name))
    done = pentad_("compare", "small", "ruined", "--json")
    assert done.status == 0, done.err
    lines = {line["metric"]: line for line in json.loads(done.out)["lines"]}
    assert lines["kl"]["better"] == "small"
    assert lines["kl"]["first"] < lines["kl"]["second"]
    assert lines["size"]["first_interval"] is None
    beside = pentad_("compare", "tiny", "small")
    assert beside.status == 0, beside.err
    assert beside.out.splitlines()[0].split()[:2] == ["metric", "tiny"]


def test_the_comparison_is_drawn(store: ModelStore, tmp_path: pathlib.Path, pentad_: Pentad) -> None:
    pytest.importorskip("matplotlib")
    derive(store, "ruined", "magnitude:sparsity=0.95")
    for name in ("small", "ruined"):
        certify(store, request(tmp_path, model=name))
    done = pentad_("compare", "small", "ruined", "--json", "--plot", "both.svg")
    assert done.status == 0, done.err
    drawn = (tmp_path / "both.svg").read_text()
    assert drawn.count('id="axes_') == len(json.loads(done.out)["lines"])


def test_what_cannot_be_compared_says_why(store: ModelStore, tmp_path: pathlib.Path, pentad_: Pentad) -> None:
    assert "pentad certify tiny makes one" in pentad_("compare", "tiny", "small").err
    _, path = certify(store, request(tmp_path))
    derive(store, "other", "round-to-nearest:format=F16")
    (tmp_path / "text.txt").write_text((tmp_path / "text.txt").read_text()[::-1])
    certify(store, request(tmp_path, model="other"))
    assert "were measured on different data (text)" in pentad_("compare", "small", "other").err
    path.write_text(path.read_text().replace('"seed":0', '"seed":1'))
    with pytest.raises(BadModelFile):
        read_certificate(store.folders, store.digest(store.find("small")), {})
    assert "was changed after it was written" in pentad_("compare", "small", "other").err
