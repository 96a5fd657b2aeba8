"""Two models on one device: in turns beside each other, or one at a time with a load at every change."""

from __future__ import annotations

import dataclasses

import pytest
from resource_samples import TINY
from scaling_worlds import LENGTHS, SLOTS, device

from evidence.plugin import Measure
from pentad.errors import Infeasible
from pentad.execution.device import Cluster, MemoryTier
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import ModelSpec
from pentad.resource.placement import Workload, plan
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    Policies,
    SimulationOptions,
    TraceItem,
    poisson,
    simulate_fleet,
)

WRITER, CODER = (dataclasses.replace(TINY, name=name) for name in ("writer", "coder"))
LOADING_S = 4.0
"""Of a model's weights: as long as four steps."""
BOX = device("box", price_per_hour=1.0, cold_start_s=LOADING_S)


def small(capacity_bytes: int) -> Cluster:
    """The device with so much main memory."""
    memory = tuple(
        dataclasses.replace(tier, capacity_bytes=capacity_bytes) if tier.name == "main" else tier
        for tier in BOX.memory
    )
    assert any(isinstance(tier, MemoryTier) and tier.name == "main" for tier in memory)
    return Cluster(devices=(dataclasses.replace(BOX, memory=memory),))


def fleet(model: ModelSpec, cluster: Cluster) -> Fleet:
    found = plan("data-parallel", model, cluster, Workload(prompt_tokens=40, concurrency=1))
    return Fleet(spec=model, cluster=cluster, plan=found)


def run(trace: tuple[TraceItem, ...], cluster: Cluster, scaler: str) -> FleetReport:
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=256, max_sequences=SLOTS, max_waiting=100_000),
    )
    fleets = [fleet(model, cluster) for model in (WRITER, CODER)]
    return simulate_fleet(trace, fleets, Policies.of(scaler=scaler), options=options)


def both(count: int, rate_per_s: float, seed: int) -> tuple[TraceItem, ...]:
    """Memoryless requests, each model half of them."""
    made = poisson(count, rate_per_s=rate_per_s, seed=seed, **LENGTHS)
    return tuple(dataclasses.replace(item, model=("writer", "coder")[i % 2]) for i, item in enumerate(made))


MEMORY = 2 << 20


@pytest.mark.row("ag-multi-instance", "mechanism")
def test_both_models_are_up_and_their_steps_take_turns_within_the_memory_of_the_device() -> None:
    items = tuple(
        TraceItem(id=f"{model}{i}", prompt_tokens=20, output_tokens=6, model=model)
        for model in ("writer", "coder")
        for i in range(3)
    )
    report = run(items, small(MEMORY), "fixed:together=true")
    turns = sorted({(at, record.model) for record in report.total.records for at in record.token_times_s})
    models = [model for _, model in turns]
    assert models[:8] in (["writer", "coder"] * 4, ["coder", "writer"] * 4)
    assert sum(engine.memory_bytes for engine in report.engines) <= 0.9 * MEMORY
    assert all(engine.memory_bytes > 0 for engine in report.engines)


@pytest.mark.row("ag-multi-instance", "mechanism")
def test_weights_that_leave_no_room_for_blocks_are_refused_and_fit_one_at_a_time() -> None:
    item = (TraceItem(id="r", prompt_tokens=20, output_tokens=2, model="writer"),)
    with pytest.raises(Infeasible, match="no room for KV blocks"):
        run(item, small(900_000), "fixed:together=true")
    assert run(item, small(900_000), "elastic").total.completed


@pytest.mark.row("ag-multi-instance", "effect", claims=(1, 2))
def test_two_models_beside_each_other_do_more_than_swapping(measured: Measure) -> None:
    """Swapping is `elastic`: an idle model makes room for one that is asked for. Two unseen seeds."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    memory = []
    for seed in (40, 41):
        load = both(120, 0.8, seed)
        for together in rates:
            report = run(load, small(MEMORY), "fixed:together=true" if together else "elastic:calm_s=5")
            assert len(report.total.completed) == len(load)
            rates[together].append(len(load) / report.total.span_s)
            if together:
                memory.append(sum(engine.memory_bytes for engine in report.engines) / (0.9 * MEMORY))
            else:
                print(f"\n{report.cold_starts} loads of weights")
    print(f"requests/s beside each other {rates[True]}, swapping {rates[False]}")
    measured("throughput over swapping", sum(rates[True]) / sum(rates[False]), at_least=1.2, unit="x")
    measured("memory over what is usable", max(memory), at_most=1.0, unit="x")
