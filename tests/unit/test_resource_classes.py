"""Classes of service: what a step bears of lower classes, and high-class requests on a busy engine."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from resource_samples import GPU, LLAMA_1B
from test_resource_scheduling import Seq, running, state, work

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.execution.scheduling import EngineLimits, SchedulerInput
from pentad.resource.scheduling.classes import Classes
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.scheduling.step_estimate import StepEstimate
from pentad.resource.simulator import SimulationOptions, TraceItem, simulate


def seen(*now: Seq, waiting: tuple[Seq, ...] = ()) -> SchedulerInput:
    """A step takes 10 ms and 1 ms for each token beside the first."""
    zeros = (0.0,) * 12
    estimate = StepEstimate(
        answers=(0.009, 0.001, *zeros), mixed=(0.009, 0.001, *zeros), error=0.0, steps_total=50
    )
    made = state(running=now, waiting=waiting)
    return dataclasses.replace(made, kept=estimate, steps_total=50)


@pytest.mark.row("ag-priority", "mechanism")
class TestStep:
    high = running("high", 20, priority=0, arrived_s=999.0)
    low = tuple(running(f"low{i}", 20, priority=2, arrived_s=990.0) for i in range(4))

    def test_beside_the_highest_class_lower_ones_decode_as_far_as_the_step_stays_short(self) -> None:
        # 10 ms alone; 1.24 times that bears two tokens more.
        plan = Classes(slowdown=1.24).plan(seen(self.high, *self.low))
        assert work(plan) == {"high": 1, "low0": 1, "low1": 1}
        assert work(Classes(slowdown=9.0).plan(seen(self.high, *self.low))) == dict.fromkeys(
            ("high", "low0", "low1", "low2", "low3"), 1
        )

    def test_prompts_of_lower_classes_get_what_is_left_of_that(self) -> None:
        prompt = Seq(id="p", num_tokens=50, priority=1, arrived_s=995.0)
        plan = Classes(slowdown=1.55).plan(seen(self.high, waiting=(prompt,)))
        assert work(plan) == {"high": 1, "p": 5}

    def test_while_the_highest_class_computes_a_prompt_lower_ones_compute_none(self) -> None:
        waiting = (
            Seq(id="p", num_tokens=50, priority=1, arrived_s=995.0),
            Seq(id="h", num_tokens=30, priority=0, arrived_s=999.5),
        )
        assert work(Classes().plan(seen(waiting=waiting))) == {"h": 30}

    def test_one_class_alone_has_the_whole_step(self) -> None:
        prompt = Seq(id="p", num_tokens=50, priority=2, arrived_s=995.0)
        assert work(Classes().plan(seen(*self.low, waiting=(prompt,))))["p"] == 50

    def test_who_is_old_enough_counts_as_of_the_class_above(self) -> None:
        old = running("old", 20, priority=1, arrived_s=600.0)
        assert work(Classes(slowdown=1.01, aging_s=300.0).plan(seen(self.high, old))) == {"old": 1, "high": 1}
        assert work(Classes(slowdown=1.01, aging_s=500.0).plan(seen(self.high, old))) == {"high": 1}

    def test_an_impossible_slowdown_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="slowdown"):
            Classes(slowdown=1.0)


OPTIONS = SimulationOptions(limits=EngineLimits(max_batch_tokens=256, max_sequences=8, max_waiting=9999))


def mixed(count: int, rate_per_s: float, seed: int) -> list[TraceItem]:
    """One request in five is of the high class."""
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(1 / rate_per_s, count))
    return [
        TraceItem(
            id=f"r{i}",
            arrival_s=float(at),
            prompt_tokens=int(draw.integers(30, 200)),
            output_tokens=int(draw.integers(5, 25)),
            slo_class="high" if draw.random() < 0.2 else "low",
        )
        for i, at in enumerate(arrivals)
    ]


@pytest.mark.row("ag-priority", "effect", claims=(1, 2))
def test_at_nine_tenths_of_the_load_a_high_class_request_takes_little_longer_than_on_an_idle_engine(
    measured: Measure,
) -> None:
    """Load is counted against what `sarathi` gets done of requests that are all there; two unseen seeds."""
    cap_s = 0.5
    full = [dataclasses.replace(item, arrival_s=0.0) for item in mixed(150, 1.0, seed=1)]
    capacity = 150 / simulate(full, LLAMA_1B, GPU, "sarathi", options=OPTIONS).span_s
    idle: list[float] = []
    busy: dict[str, list[float]] = {"sarathi": [], "classes": []}
    waits: list[float] = []
    for seed in (30, 31):
        load = mixed(180, 0.9 * capacity, seed)
        load = [dataclasses.replace(item, priority=0 if item.slo_class == "high" else 2) for item in load]
        apart = [item for item in load if item.slo_class == "high"]
        apart = [dataclasses.replace(item, arrival_s=float(i)) for i, item in enumerate(apart)]
        idle += [r.completion_s for r in simulate(apart, LLAMA_1B, GPU, "sarathi", options=OPTIONS).records]
        for policy in (Sarathi(aging_s=cap_s / 2), Classes(aging_s=cap_s / 2)):
            records = simulate(load, LLAMA_1B, GPU, policy, options=OPTIONS).records
            busy[policy.name] += [r.completion_s for r in records if r.item.slo_class == "high"]
            if policy.name == "classes":
                waits += [r.ttft_s for r in records if r.item.slo_class == "low"]
    alone_s = float(np.quantile(idle, 0.95))
    ratios = {name: float(np.quantile(took, 0.95)) / alone_s for name, took in busy.items()}
    print(f"\np95 of the high class over idle: {ratios}; longest wait of the low one {max(waits):.3f} s")
    measured("p95 of the high class over idle", ratios["classes"], at_most=1.2, unit="x")
    measured("longest wait of the low class over its cap", max(waits) / cap_s, at_most=1.0, unit="x")
