"""Runs whose stages are computed by different models, on fewer devices than models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from resource_samples import TINY
from scaling_worlds import device

from pentad.execution.device import Cluster
from pentad.execution.scheduling import EngineLimits
from pentad.resource.placement import Workload, plan
from pentad.resource.scaling.base import FleetScaler
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    Policies,
    SimulationOptions,
    TraceItem,
    simulate_fleet,
)
from pentad.types import Hints

Follows = Mapping[str, Mapping[str, float]]
TOOLS_S = {"planner": 4.0, "coder": 12.0, "vision": 8.0, "critic": 3.0, "writer": 2.0}
"""What the tool behind each model takes, on average."""


def staged_runs(
    follows: Follows, seed: int, *, runs: int, every_s: float, announced: bool = False
) -> list[TraceItem]:
    """Runs that begin with the planner and go on as `follows` says; tools take lognormal times.

    Args:
        announced: whether each call says which model comes next and when, as an oracle would.
    """
    draw = np.random.default_rng(seed)
    items: list[TraceItem] = []
    at_s = 0.0
    for number in range(runs):
        at_s += draw.exponential(every_s)
        model, pauses = "planner", [0.0]
        stages: list[str] = []
        while model and len(stages) < 12:
            stages.append(model)
            pauses.append(TOOLS_S[model] * float(draw.lognormal(-0.08, 0.4)))
            others = follows.get(model, {})
            names = [*others, ""]
            chances = [*others.values(), max(0.0, 1 - sum(others.values()))]
            model = names[int(draw.choice(len(names), p=chances))]
        for i, stage in enumerate(stages):
            last = i + 1 == len(stages)
            hints = Hints(next="end" if last else "tool")
            if announced and not last:
                hints = Hints(next=stages[i + 1], tool_s=pauses[i + 1])
            items.append(
                TraceItem(
                    id=f"r{number}/{i}",
                    arrival_s=at_s,
                    prompt_tokens=int(draw.integers(16, 64)),
                    output_tokens=int(draw.integers(2, 5)),
                    after=f"r{number}/{i - 1}" if i else None,
                    pause_s=pauses[i],
                    run=f"r{number}",
                    model=stage,
                    hints=hints,
                )
            )
    return items


def played(
    items: Sequence[TraceItem],
    scaler: FleetScaler,
    *,
    models: Sequence[str],
    devices: int,
    cold_start_s: float,
    slots: int = 4,
) -> FleetReport:
    """The runs on so many devices, each of which holds one of the models at a time."""
    boxes = [device(f"box-{i}", price_per_hour=1.0, cold_start_s=cold_start_s) for i in range(devices)]
    boxes = [dataclasses.replace(b, extra={**b.extra, "step_overhead_s": 0.5}) for b in boxes]
    cluster = Cluster(devices=tuple(boxes))
    fleets = []
    for model in models:
        spec = dataclasses.replace(TINY, name=model)
        found = plan("data-parallel", spec, cluster, Workload(prompt_tokens=40, concurrency=slots))
        fleets.append(Fleet(spec=spec, cluster=cluster, plan=found))
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=256, max_sequences=slots, max_waiting=9999), kv_blocks=64
    )
    policies = dataclasses.replace(Policies.of(offload="fastest"), scaler=scaler)
    return simulate_fleet(items, fleets, policies, options=options)
