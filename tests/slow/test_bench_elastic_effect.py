"""Policies on real models and a mixed workload: the joint choice beside each fixed one.

nice .venv/bin/pytest -s -m slow tests/slow/test_bench_elastic_effect.py
Some three minutes on two cores with nothing beside it. It prints the scores: `fw-five-layer` asks for 1.5
times the goodput of the best single-layer policy, which so short a play cannot tell.
"""

from __future__ import annotations

import asyncio
import json
import pathlib

import pytest

from pentad.agent.evaluation.workload_file import read_workload
from pentad.application.bench.elastic.live import live_contestants
from pentad.application.bench.elastic.play import Bench, Plan
from pentad.application.bench.elastic.policy import policies_of
from pentad.application.config_loading import load_settings
from process_support import home_with

pytestmark = pytest.mark.slow
WORKLOAD = pathlib.Path(__file__).parents[2] / "examples" / "mixed.jsonl"
POLICIES = (
    "fixed:smollm2-135m/cot:think_tokens=0,fixed:qwen-0.5b/cot:think_tokens=0,"
    "fixed:qwen-0.5b/cot:think_tokens=128,elastic:trials=0.2"
)


def test_the_joint_choice_beside_fixed_models(
    tmp_path: pathlib.Path, smollm2_path: pathlib.Path, qwen_path: pathlib.Path
) -> None:
    """A third of the verdicts are told, as users would; the joint choice begins with none."""
    home = home_with(tmp_path, {"smollm2-135m": smollm2_path, "qwen-0.5b": qwen_path})
    settings = load_settings(
        {"models": ("smollm2-135m", "qwen-0.5b"), "embedding_model": None, "home": str(home)}
    )
    bench = Bench(
        workload=read_workload(WORKLOAD),
        plan=Plan(loads=(0.8,), minutes=0.6, rounds=2, capacity_runs=8, seed=1, feedback=0.33),
    )

    async def play() -> None:
        policies = policies_of(POLICIES)
        async with live_contestants(settings, policies, bench.workload, ()) as contestants:
            await bench.play(contestants)

    asyncio.run(play())
    result = bench.result()
    print(json.dumps(result))
    (at,) = result["loads"]
    small = at["policies"]["fixed:smollm2-135m/cot:think_tokens=0"]
    joint = at["policies"]["elastic:trials=0.2"]
    assert {one["arrived"] for one in at["policies"].values()} == {small["arrived"]}
    assert joint["runs"] == small["runs"] > 0
    assert joint["within_budget"] == joint["runs"]
    lines = bench.played[0.8, "elastic:trials=0.2"].lines
    assert {one.model for one in lines if one.model} <= {"smollm2-135m", "qwen-0.5b"}
