"""Bursts of ten times the usual load: a fleet that follows them against one that is always large enough."""

from __future__ import annotations

import math

import pytest
from scaling_worlds import LENGTHS, MEAN_S, SLOTS, device, replay

from evidence.plugin import Measure
from pentad.resource.simulator import TraceItem, bursty

FACTOR = 10.0
SHARE = 0.1
RATE_PER_S = 2.0


@pytest.mark.row("het-app-load", "effect", claims=(1,))
def test_a_burst_of_ten_times_the_load_is_met_at_half_the_cost_of_a_fleet_for_it(measured: Measure) -> None:
    """Cheap devices that start slowly and dear ones that start at once, under MArk; two unseen seeds."""
    calm = RATE_PER_S / (1 - SHARE + SHARE * FACTOR)
    peak = math.ceil(calm * FACTOR * MEAN_S / (SLOTS * 0.7))
    large = [device(f"vm-{i}", price_per_hour=1.0, cold_start_s=40.0) for i in range(peak)]
    mixed = [
        *large[: math.ceil(peak / 3)],
        *(device(f"fn-{i}", price_per_hour=2.5, cold_start_s=0.5) for i in range(peak)),
    ]
    goodput: dict[str, float] = {"fixed": 0.0, "mark": 0.0}
    cost: dict[str, float] = {"fixed": 0.0, "mark": 0.0}
    for seed in (50, 51):
        trace = bursty(500, rate_per_s=RATE_PER_S, factor=FACTOR, share=SHARE, seed=seed, **LENGTHS)
        for scaler, devices in (("fixed", large), ("mark", mixed)):
            report = replay(trace, devices, scaler, offload="fastest")
            goodput[scaler] += report.total.attainment / 2
            cost[scaler] += report.cost
    print(f"\n{peak} devices for the peak; met {goodput}, cost {cost}")
    measured("goodput of that of the large fleet", goodput["mark"] / goodput["fixed"], at_least=0.9)
    measured("cost of that of the large fleet", cost["mark"] / cost["fixed"], at_most=0.5)


@pytest.mark.row("het-app-load", "mechanism")
def test_a_burst_waits_for_devices_that_start_at_once_and_gives_them_back() -> None:
    devices = [
        device("vm", price_per_hour=1.0, cold_start_s=40.0),
        *(device(f"fn-{i}", price_per_hour=2.5, cold_start_s=0.5) for i in range(4)),
    ]
    calm = [TraceItem(id=f"c{i}", arrival_s=2.0 * i, prompt_tokens=30, output_tokens=4) for i in range(120)]
    burst = [TraceItem(id=f"b{i}", arrival_s=60.0, prompt_tokens=30, output_tokens=4) for i in range(30)]
    report = replay([*calm, *burst], devices, "mark", offload="fastest")
    assert len(report.total.completed) == 150, "nobody is refused"
    sizes = [(d.at_s, d.chosen) for d in report.scaling]
    assert (60.0, "5") in sizes, "all come up in the second of the burst"
    assert sizes[-1] == (80.0, "1"), "and are given back behind it"
    up = {engine.name: engine.up_s for engine in report.engines}
    assert up["vm"] > 200
    assert max(up[f"fn-{i}"] for i in (1, 2, 3)) < 30
