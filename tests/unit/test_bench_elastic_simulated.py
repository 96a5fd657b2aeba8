"""Policies in virtual time: the same runtime, routers and arrivals as live, on costs of a machine."""

from __future__ import annotations

import asyncio
import pathlib
from dataclasses import replace
from typing import Any

import pytest
from resource_samples import LLAMA_1B, LLAMA_SMALL, measured_device

from elastic_bench import workload_at
from pentad.application.bench.elastic.play import Bench, Plan
from pentad.application.bench.elastic.policy import policies_of
from pentad.application.bench.elastic.run_line import RunLine
from pentad.application.bench.elastic.simulated import SimulatedMachine, simulated_contestants
from pentad.application.bench.elastic.simulated_model import Recorded
from pentad.errors import InvalidRequest
from pentad.execution.scheduling import EngineLimits
from pentad.resource.cost import StepCost
from pentad.resource.simulator.virtual_loop import VirtualLoop

DEVICE = measured_device()
MACHINE = SimulatedMachine(
    costs={
        "small": StepCost(profile=DEVICE, spec=LLAMA_SMALL),
        "large": StepCost(profile=DEVICE, spec=LLAMA_1B),
    },
    qualities={"small": 0.3, "large": 0.9},
)
FAST, SLOW = "cot:think_tokens=0", "cot:think_tokens=64"


def met(task: str, slo_class: str, model: str, way: str, *, right: bool, tokens: int) -> RunLine:
    return RunLine(
        policy="earlier", load=1.0, arrival=0, task=task, slo_class=slo_class, model=model, way=way,
        right=right, about="", status="answered", seconds=1.0, tokens=2 * tokens, prompt_tokens=tokens,
        completion_tokens=tokens, model_calls=1, cost=0.0,
    )  # fmt: skip


KNOWN = [
    met(task, slo_class, model, way, tokens=tokens,
        right=model == "large" or (way == SLOW and task == "sum-1"))
    for task, slo_class, ways in (("sum-1", "sums", (FAST, SLOW)), ("sum-2", "sums", (FAST, SLOW)),
                                  ("call-1", "calls", ("",)))
    for way, tokens in zip(ways, (12, 24), strict=False)
    for model in ("small", "large")
    for _ in range(12)
]  # fmt: skip


def simulated(path: pathlib.Path, policies: str, plan: Plan, machine: SimulatedMachine = MACHINE) -> Bench:
    """A benchmark in virtual time, to its end."""
    bench = Bench(workload=workload_at(path), plan=plan)

    async def scenario() -> None:
        chosen = policies_of(policies)
        async with simulated_contestants(machine, chosen, bench.workload, KNOWN, seed=plan.seed) as ready:
            await bench.play(ready)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario())
    return bench


def without_ids(bench: Bench) -> list[Any]:
    return [(one.policy, one.arrival, one.model, one.way, one.right, one.seconds, one.tokens)
            for played in bench.played.values() for one in played.lines]  # fmt: skip


@pytest.mark.row("fw-five-layer", "mechanism")
@pytest.mark.row("fut-flex-reasoning", "mechanism")
def test_simulated_policies_meet_recorded_outcomes_again(tmp_path: pathlib.Path) -> None:
    plan = Plan(loads=(0.7,), minutes=0.3, rounds=2, capacity_per_minute=60, seed=2)
    policies = f"fixed:small/{FAST},fixed:small/{SLOW},fixed:large/{FAST},elastic"
    bench = simulated(tmp_path, policies, plan)
    (at,) = bench.result()["loads"]
    direct, thinking, large, joint = at["policies"].values()
    assert direct["runs"] == thinking["runs"] == large["runs"] == joint["runs"] > 10
    # As recorded: directly the small model is right of nothing, with a chain of half the sums.
    assert direct["right"] == 0
    assert thinking["classes"]["sums"]["quality"] == pytest.approx(0.5, abs=0.35)
    assert large["right"] == large["runs"]
    # The small one is some twenty times as fast on this machine.
    assert direct["seconds_p50"] < large["seconds_p50"] / 4
    assert joint["right"] > thinking["right"]
    assert all(one.simulated for one in bench.played[0.7, "elastic"].lines)
    again = simulated(tmp_path, policies, plan)
    assert without_ids(again) == without_ids(bench)


@pytest.mark.row("het-app-slo", "mechanism")
def test_beyond_the_capacity_runs_come_too_late(tmp_path: pathlib.Path) -> None:
    plan = Plan(loads=(0.25, 5.0), minutes=0.4, rounds=1, seed=2, capacity_runs=4)
    machine = replace(MACHINE, limits=EngineLimits(max_sequences=2))
    bench = simulated(tmp_path, f"fixed:large/{FAST}", plan, machine)
    assert bench.capacity is not None
    assert 1 < bench.capacity < 1000
    calm, crowded = (at["policies"][f"fixed:large/{FAST}"] for at in bench.result()["loads"])
    assert calm["in_time"] / calm["runs"] > 0.8
    assert crowded["in_time"] / crowded["runs"] < 0.5
    assert crowded["classes"]["sums"]["missed"]["deadline_s"] > 0


def test_what_nobody_met_is_drawn_alike_for_all(tmp_path: pathlib.Path) -> None:
    recorded = Recorded(lines=KNOWN, seed=1, qualities={"other": 0.5})
    shares = [recorded.expected(f"t{n}", "sums", "small", SLOW).right for n in range(400)]
    assert sum(shares) / 400 == pytest.approx(0.5, abs=0.1)
    assert shares == [recorded.expected(f"t{n}", "sums", "small", SLOW).right for n in range(400)]
    assert recorded.expected("t", "sums", "other", "").tokens == recorded.answer_tokens


def test_another_server_is_not_simulated(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidRequest, match="is not simulated"):
        simulated(tmp_path, "remote:http://h:1/v1/m", Plan(loads=(1,), minutes=0.1, capacity_per_minute=1))
