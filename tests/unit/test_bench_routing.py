"""Routers on recorded outcomes: areas, the bounds between which they lie, and what the verb refuses."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from test_model_success import lessons

from cli_support import Pentad
from pentad.application.bench.routing import bench_routing, costs_of, curve_of
from pentad.errors import InvalidRequest, UnknownName
from pentad.model.routing.success import Lessons


def test_a_router_that_knows_who_is_right_spends_only_where_it_helps() -> None:
    right = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    curve = curve_of(right, right, np.array([1.0, 3.0]))
    assert curve.quality.mean(axis=1)[0] == 0.75
    assert curve.cost.mean(axis=1)[0] == 1.5
    assert (curve.quality.mean(axis=1)[-1], curve.cost.mean(axis=1)[-1]) == (0.5, 1.0)
    # From 0.5 up to 0.75 at a cost of 1.5, and no more beyond.
    assert curve.area(1.0, 3.0)[0] == pytest.approx(0.75 - 0.25 * 0.25 / 2, abs=2e-3)


def test_what_is_learned_lies_between_chance_and_the_oracle() -> None:
    known = lessons(400)
    result = bench_routing(known, ["mixed"], costs_of({}, known), seeds=2)
    assert list(result["routers"]) == ["mixed", "knn"]
    for one in result["routers"].values():
        assert result["random"] < one["area"] < result["oracle"]
        assert one["over_knn_interval"][0] <= one["over_knn"] <= one["over_knn_interval"][1]
    assert result["routers"]["knn"]["over_knn"] == 0
    assert result["costs"] == {"small": 1.0, "large": 2.0}
    assert result == bench_routing(known, ["mixed"], costs_of({}, known), seeds=2)


def test_the_half_that_judges_is_not_learned_from() -> None:
    """Outcomes that nothing predicts give no gain over drawing the model."""
    known = lessons(400)
    blind = np.random.default_rng(5).integers(0, 2, known.right.shape).astype(float)
    noise = Lessons(models=known.models, questions=known.questions, right=blind)
    result = bench_routing(noise, ["mixed"], costs_of({}, noise), seeds=4)
    for one in result["routers"].values():
        assert abs(one["area"] - result["random"]) < 0.05


def test_what_cannot_be_compared_is_refused() -> None:
    known = lessons(60)
    with pytest.raises(InvalidRequest, match="no cost is given for large; add --cost large=NUMBER"):
        costs_of({"small": 1.0}, known)
    holes = known.right.copy()
    holes[0, 0] = np.nan
    with pytest.raises(InvalidRequest, match="record all models on the same questions"):
        bench_routing(Lessons(models=known.models, questions=known.questions, right=holes), [], {}, seeds=1)
    with pytest.raises(UnknownName, match="unknown success 'best'"):
        bench_routing(known, ["best"], costs_of({}, known), seeds=1)


def test_the_verb_names_what_it_wants(pentad_: Pentad, tmp_path: pathlib.Path) -> None:
    missing = pentad_("bench", "routing", "--outcomes", "absent.jsonl")
    assert missing.status != 0
    assert "there are no outcomes at 'absent.jsonl'" in missing.err
    file = tmp_path / "o.jsonl"
    file.write_text(json.dumps({"prompt": "x", "outcomes": {"a": 1}}), "utf-8")
    wrong = pentad_("bench", "routing", "--outcomes", str(file), "--cost", "a")
    assert wrong.status != 0
