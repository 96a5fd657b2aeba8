"""pentad simulate --cluster: one file, many engines, one report; refusals name the way out."""

from __future__ import annotations

import json
import pathlib

import pytest

from cli_support import Pentad

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
SIZES = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}


@pytest.fixture
def words(tmp_path: pathlib.Path) -> list[str]:
    """A replay of sixteen requests on the example cluster of two GPUs and an edge box."""
    config = tmp_path / "small" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps(SIZES), encoding="utf-8")
    cluster = str(EXAMPLES / "cluster.yaml")
    return [
        *("simulate", "poisson", "--model", str(config), "--cluster", cluster),
        *("--limit", "16", "--rate-per-s", "50", "--kv-blocks", "500"),
    ]


def test_every_engine_of_a_cluster_is_told_beside_the_whole(pentad_: Pentad, words: list[str]) -> None:
    first, again = (pentad_(*words, "--offload", "flow", "--json") for _ in range(2))
    assert first.out == again.out
    data = json.loads(first.out)
    assert data["completed"] == 16
    assert [engine["name"] for engine in data["engines"]] == ["gpu-1", "gpu-2", "edge"]
    assert sum(engine["requests"] for engine in data["engines"]) == 16
    assert data["cost"] == pytest.approx(data["span_s"] * 0.85 / 3600)
    shown = pentad_(*words, "--offload", "flow").out
    assert "given to engines by  flow" in shown
    assert "gpu-2" in shown


def test_where_requests_arise_and_which_policy_decides_changes_who_computes(
    pentad_: Pentad, words: list[str]
) -> None:
    def given(*more: str) -> dict[str, int]:
        data = json.loads(pentad_(*words, *more, "--json").out)
        return {engine["name"]: engine["requests"] for engine in data["engines"]}

    assert given("--origin", "edge", "--offload", "local") == {"gpu-1": 0, "gpu-2": 0, "edge": 16}
    assert given("--origin", "edge", "--offload", "fastest")["edge"] < 16
    assert given("--origin", "gpu-1", "--offload", "local")["gpu-1"] == 16


def test_a_placement_makes_the_engines_and_rates_find_the_knee(pentad_: Pentad, words: list[str]) -> None:
    data = json.loads(pentad_(*words, "--strategy", "replicated:replicas=2", "--json").out)
    assert len(data["engines"]) == 2
    swept = json.loads(pentad_(*words, "--rates", "5,50", "--ttft-s", "10", "--json").out)
    assert [point["completed"] for point in swept["rates"]] == [16, 16]


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (("--origin", "nowhere"), 2, "no device 'nowhere'"),
        (("--offload", "fastes"), 2, "did you mean 'fastest'?"),
        (("--device", "h100-sxm"), 2, "--cluster names the devices"),
        (("--strategy", "replicated:replicas=9"), 3, "9 replicas need as many devices"),
    ],
)
def test_what_cannot_be_simulated_is_refused(
    pentad_: Pentad, words: list[str], more: tuple[str, ...], status: int, message: str
) -> None:
    outcome = pentad_(*words, *more)
    assert outcome.status == status
    assert message in outcome.err
