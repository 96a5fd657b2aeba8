"""Worlds that several tests of scalers simulate: slow engines, so that few requests are a load."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from resource_samples import TINY, measured_device

from pentad.execution.device import Cluster, DeviceProfile
from pentad.execution.scheduling import EngineLimits
from pentad.resource.placement import Workload, plan
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    Policies,
    SimulationOptions,
    TraceItem,
    simulate_fleet,
)
from pentad.types import Objective, RunContext

SLOTS = 8
STEP_S = 1.0
"""About what a step takes: an answer of five tokens takes five seconds."""
LENGTHS = {"prompt_tokens": (16, 64), "output_tokens": (3, 7)}
MEAN_S = 5.5
"""About what such a request takes where nobody waits."""
OBJECTIVE = Objective(deadline_s=12.0)


def device(name: str, *, price_per_hour: float, cold_start_s: float) -> DeviceProfile:
    """A device whose steps take `STEP_S`, whatever is in them."""
    box = measured_device()
    extra = {**box.extra, "step_overhead_s": STEP_S, "cold_start_s": cold_start_s}
    return dataclasses.replace(box, name=name, price_per_hour=price_per_hour, extra=extra)


def replay(
    trace: Sequence[TraceItem],
    devices: Sequence[DeviceProfile],
    scaler: str,
    *,
    objective: Objective = OBJECTIVE,
    offload: str = "local",
) -> FleetReport:
    """The trace on one engine per device, under that scaler."""
    cluster = Cluster(devices=tuple(devices))
    found = plan("data-parallel", TINY, cluster, Workload(prompt_tokens=40, concurrency=SLOTS))
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=256, max_sequences=SLOTS, max_waiting=100_000), kv_blocks=64
    )
    fleet = Fleet(spec=TINY, cluster=cluster, plan=found, context=RunContext(objective=objective))
    return simulate_fleet(trace, fleet, Policies.of(scaler=scaler, offload=offload), options=options)
