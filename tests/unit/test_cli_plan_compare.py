"""pentad plan --compare: strategies side by side, refusals among them; a drawing of a plan."""

from __future__ import annotations

import json
import pathlib

import pytest

from cli_support import Pentad

CLUSTER = str(pathlib.Path(__file__).parents[2] / "examples" / "cluster.yaml")


def test_every_strategy_has_a_row_and_those_without_a_plan_say_why(pentad_: Pentad) -> None:
    words = ("plan", "gpt3-6.7b", "--cluster", CLUSTER, "--concurrency", "4")
    compared = ("--compare", "auto,phases:prefill_devices=1,single")
    data = json.loads(pentad_(*words, *compared, "--json").out)
    assert [row["strategy"] for row in data] == ["auto", "phases:prefill_devices=1", "single"]
    assert data[0]["plan"]["throughput_tokens_per_s"] >= data[2]["plan"]["throughput_tokens_per_s"]
    assert data[1]["binding"] == "memory", "the edge box does not hold the model"
    shown = pentad_(*words, *compared).out
    assert "between tokens" in shown
    assert "no plan: device" in shown


def test_a_plan_of_several_devices_is_drawn(pentad_: Pentad) -> None:
    shown = pentad_("plan", "gpt3-6.7b", "--cluster", CLUSTER, "--strategy", "replicated:replicas=1").out
    line = next(line for line in shown.splitlines() if "-->" in line)
    assert "100% --> [gpu-1: 0-" in line
    assert line.count("-->") == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [(("--compare", ","), "--compare is"), (("--compare", "autos"), "did you mean 'auto'")],
)
def test_what_cannot_be_compared_is_refused(pentad_: Pentad, more: tuple[str, ...], message: str) -> None:
    done = pentad_("plan", "gpt3-6.7b", "--cluster", CLUSTER, *more)
    assert done.status == 2
    assert message in done.err
