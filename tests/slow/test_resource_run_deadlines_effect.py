"""Deadlines of runs whose stages pass on what they leave of their shares, beside fixed shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from resource_samples import LLAMA_1B, measured_device

from evidence.plugin import Measure
from pentad.execution.scheduling import EngineLimits
from pentad.resource.cost import StepCost
from pentad.resource.simulator import SimulationOptions, SimulationReport, TraceItem, agent_run, simulate
from pentad.types import Hints, Objective

pytestmark = pytest.mark.slow

COST = StepCost(profile=measured_device(), spec=LLAMA_1B)
OPTIONS = SimulationOptions(
    limits=EngineLimits(max_batch_tokens=256, max_sequences=8, max_waiting=999), kv_blocks=2000
)
CAPACITY_PER_S = 0.12
"""Runs per second that the engine ends when all are there at once: 40 of them took it 333 s."""


def deadline_runs(seed: int, *, passed: bool) -> tuple[list[TraceItem], dict[str, float]]:
    """40 runs at 80% of the capacity, each to end within three times what it takes alone; the deadlines.

    Args:
        passed: whether slack is passed on; else each stage has an even share of the deadline to itself.
    """
    draw = np.random.default_rng(seed)
    items: list[TraceItem] = []
    deadlines: dict[str, float] = {}
    at_s = 0.0
    for number in range(40):
        at_s += draw.exponential(1 / (0.8 * CAPACITY_PER_S))
        steps = int(draw.integers(2, 7))
        first, added = int(draw.integers(100, 800)), int(draw.integers(30, 200))
        answers = draw.lognormal(3.0, 0.9, steps).clip(2, 200).astype(int)
        pauses = draw.exponential(1.0, steps)
        alone_s = 0.00465 * (first + added * (steps - 1)) + 0.243 * 30.1 * steps + 1.0 * (steps - 1)
        deadline_s = deadlines[f"r{number}"] = 3 * alone_s
        run = agent_run(
            f"r{number}", arrival_s=at_s, steps=steps, first_prompt=first, added=added, output=1, pause_s=0.0
        )
        for i, item in enumerate(run):
            behind = steps - 1 - i
            made = replace(
                item,
                output_tokens=int(answers[i]),
                pause_s=float(pauses[i]) if i else 0.0,
                hints=Hints(next="tool" if behind else "end", remaining_steps=behind),
            )
            share = Objective(deadline_s=deadline_s / steps * (behind + 1))
            items.append(
                replace(made, run_deadline_s=deadline_s) if passed else replace(made, objective=share)
            )
    return items, deadlines


def hits(report: SimulationReport, deadlines: dict[str, float]) -> float:
    """Share of the runs that ended in time."""
    took = report.run_seconds
    refused = {record.item.run for record in report.records if not record.completed}
    return float(np.mean([run not in refused and took[run] <= limit for run, limit in deadlines.items()]))


def shares(scheduler: str, seeds: Sequence[int], *, passed: bool) -> float:
    found = []
    for seed in seeds:
        items, deadlines = deadline_runs(seed, passed=passed)
        report = simulate(items, LLAMA_1B, measured_device(), scheduler, options=OPTIONS, cost=COST)
        found.append(hits(report, deadlines))
    return float(np.mean(found))


@pytest.mark.row("ag-latency", "effect", negative=True)
def test_passing_slack_on_keeps_hardly_more_deadlines_than_fixed_shares(measured: Measure) -> None:
    """The row asks for ten points more. At 80% of the capacity the order decides few runs: they are in time
    with either, or too long for both. With `clockwork`, which refuses what it cannot keep, five points were
    found on the seed that was looked at, and with prompts that cost most and tight deadlines up to 42, but
    then 54% of the runs were in time, far below the 95% that are asked for."""
    for scheduler in ("workflow", "clockwork"):
        passing, fixed = (shares(scheduler, (5,), passed=passed) for passed in (True, False))
        print(f"\n{scheduler}: in time {passing:.3f}, with fixed shares {fixed:.3f}")
        measured(f"points more than with fixed shares, {scheduler}", 100 * (passing - fixed), at_most=10)
