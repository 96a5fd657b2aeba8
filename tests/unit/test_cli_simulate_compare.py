"""pentad simulate --compare: policies side by side on one load, as a table, JSON and a drawing."""

from __future__ import annotations

import json
import pathlib
import xml.etree.ElementTree as ElementTree

import pytest

from cli_support import Pentad
from pentad.application.cli.line_chart import cumulative, line_chart

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
WORDS = (
    *("simulate", "poisson", "--model", "gpt3-125m", "--device", "rtx-4090"),
    *("--limit", "30", "--rate-per-s", "100", "--kv-blocks", "800", "--max-sequences", "4"),
)


def test_each_policy_has_a_row_that_is_what_it_does_by_itself(pentad_: Pentad) -> None:
    both = json.loads(pentad_(*WORDS, "--compare", "scheduler=fcfs,sarathi:token_budget=64", "--json").out)
    assert [row["policies"] for row in both] == [
        {"scheduler": "fcfs"},
        {"scheduler": "sarathi:token_budget=64"},
    ]
    alone = json.loads(pentad_(*WORDS, "--scheduler", "sarathi:token_budget=64", "--json").out)
    assert {key: both[1][key] for key in alone} == alone
    assert both[0]["ttft_s"] != both[1]["ttft_s"]
    shown = pentad_(*WORDS, "--compare", "scheduler=fcfs,workflow").out
    assert [line.split()[0] for line in shown.splitlines()] == ["policies", "fcfs", "workflow"]


def test_families_are_combined_and_clusters_add_theirs(pentad_: Pentad) -> None:
    words = [word for word in WORDS if word not in ("--device", "rtx-4090")]
    words += ["--cluster", str(EXAMPLES / "cluster.yaml")]
    words += ["--compare", "offload=local,fastest", "--compare", "kv-eviction=announced,least-recent"]
    rows = json.loads(pentad_(*words, "--json").out)
    assert [tuple(row["policies"].values()) for row in rows] == [
        ("local", "announced"),
        ("local", "least-recent"),
        ("fastest", "announced"),
        ("fastest", "least-recent"),
    ]
    assert rows[0]["offload"] == "local"
    assert rows[2]["offload"] == "fastest"


def test_rates_find_the_knee_of_each_policy_and_a_plot_draws_them(
    pentad_: Pentad, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "knees.svg"
    words = (*WORDS, "--compare", "scheduler=fcfs,sarathi", "--rates", "20,2000", "--ttft-s", "0.05")
    rows = json.loads(pentad_(*words, "--plot", str(path), "--json").out)
    assert [row["policies"]["scheduler"] for row in rows] == ["fcfs", "sarathi"]
    for row in rows:
        assert [point["rate_per_s"] for point in row["rates"]] == [20, 2000]
        assert 20 <= row["knee_per_s"] < 2000
    drawn = ElementTree.parse(path).getroot()
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"fcfs", "sarathi", "requests per second"} <= set(texts)
    assert "knee" in pentad_(*words).out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--compare", "sheduler=fcfs"), "scheduler, kv_eviction, offload, scaler, strategy"),
        (("--compare", "scheduler"), "give FAMILY=NAME,NAME"),
        (("--compare", "scheduler=fcfs,sarathy"), "did you mean 'sarathi'?"),
        (("--compare", "offload=local,fastest"), "add --cluster FILE"),
        (("--compare", "scheduler=fcfs", "--compare", "scheduler=sarathi"), "in one list"),
        (("--compare", "scheduler=fcfs", "--plot", "/nowhere/a.svg"), "give --plot another place"),
        (("--plot", "a.svg"), "add --compare"),
    ],
)
def test_what_cannot_be_compared_is_refused(pentad_: Pentad, more: tuple[str, ...], message: str) -> None:
    refused = pentad_(*WORDS, *more)
    assert refused.status == 2
    assert message in refused.err


def test_a_chart_escapes_names_and_keeps_lines_inside_its_axes() -> None:
    chart = line_chart("a <title>", "x", "y", {"a & b": [(0.0, 0.0), (3.0, 0.7)]})
    root = ElementTree.fromstring(chart)
    assert "a & b" in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "M76.0,358.0 740.0," in chart  # from the origin to the end of the x axis
    assert cumulative([3.0, 1.0, 2.0, 2.0]) == [(0.0, 0.0), (1.0, 0.25), (2.0, 0.5), (2.0, 0.75), (3.0, 1.0)]
