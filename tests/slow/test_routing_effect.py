"""Routers on the recorded outcomes of RouteLLM: better than neighbours by MiniLM and than the best single."""

from __future__ import annotations

import pathlib

import pytest

from evidence.plugin import Measure
from pentad.application.bench.routing import bench_routing, costs_of
from pentad.model.embedding import LocalEmbedder
from pentad.model.routing.outcomes import lessons_of, read_outcomes

OUTCOMES = pathlib.Path(__file__).parents[3] / "shared" / "data" / "routing-outcomes"


@pytest.mark.slow
@pytest.mark.skipif(not OUTCOMES.exists(), reason="there are no routing-outcomes in shared/data")
def test_mixed_is_ahead_of_neighbours_and_of_the_best_single_and_calibrated(
    minilm_path: pathlib.Path, measured: Measure
) -> None:
    lessons = lessons_of(read_outcomes(OUTCOMES), LocalEmbedder.open(minilm_path).embed)
    result = bench_routing(lessons, ["mixed"], costs_of({}, lessons), seeds=10)
    mixed = result["routers"]["mixed"]
    measured("area over knn, mean of ten halves", mixed["over_knn"], at_least=0.0)
    measured("halves ahead of knn", mixed["ahead_of_knn"], at_least=6)
    measured("area over the best single's quality", mixed["over_best_single"], at_least=0.0)
    measured("calibration error, mean of ten halves", max(mixed["ece"].values()), at_most=0.05)
