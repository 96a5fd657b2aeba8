"""Four edge boxes and a cloud behind a link, for tests of offload policies."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from resource_samples import TINY, measured_device

from pentad.execution.device import Cluster, DeviceProfile, Link
from pentad.execution.scheduling import EngineLimits
from pentad.resource.placement import Workload, plan
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    LinkChange,
    Policies,
    SimulationOptions,
    TraceItem,
    poisson,
    simulate_fleet,
)
from pentad.types import Objective, RunContext

EDGES = ("edge-0", "edge-1", "edge-2", "edge-3")
CLOUD = "cloud"
LENGTHS = {"prompt_tokens": (200, 800), "output_tokens": (3, 9)}


def _device(name: str, step_s: float) -> DeviceProfile:
    box = measured_device()
    return dataclasses.replace(box, name=name, extra={**box.extra, "step_overhead_s": step_s})


def cluster(wide_bytes_per_s: float) -> Cluster:
    """Edges of 0.3 s a step, joined by a fast net, and a cloud of 0.1 s a step behind one of that width."""
    devices = (*(_device(name, 0.3) for name in EDGES), _device(CLOUD, 0.1))
    near = [
        Link(source=a, target=b, bytes_per_s=1.25e8, latency_s=1e-3)
        for a, b in itertools.permutations(EDGES, 2)
    ]
    far = [
        Link(source=a, target=b, bytes_per_s=wide_bytes_per_s, latency_s=0.04)
        for edge in EDGES
        for a, b in ((edge, CLOUD), (CLOUD, edge))
    ]
    return Cluster(devices=devices, links=(*near, *far))


def replay(
    trace: Sequence[TraceItem],
    wide_bytes_per_s: float,
    offload: str,
    *,
    among: Sequence[str] = (*EDGES, CLOUD),
    objective: Objective | None = None,
    changes: Sequence[LinkChange] = (),
) -> FleetReport:
    """The trace, which arises at the first edge, on the engines of `among`."""
    devices = cluster(wide_bytes_per_s)
    whole = plan("data-parallel", TINY, devices, Workload(prompt_tokens=500, concurrency=4))
    kept = [replica for replica in whole.replicas if replica.devices[0] in among]
    weight = sum(replica.weight for replica in kept)
    found = dataclasses.replace(
        whole, replicas=tuple(dataclasses.replace(each, weight=each.weight / weight) for each in kept)
    )
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=2048, max_sequences=4, max_waiting=100_000), kv_blocks=400
    )
    fleet = Fleet(
        spec=TINY,
        cluster=devices,
        plan=found,
        origin=EDGES[0],
        context=RunContext(objective=objective or Objective()),
    )
    return simulate_fleet(trace, fleet, Policies.of(offload=offload), options=options, changes=changes)


def load(rate_per_s: float, count: int, seed: int) -> tuple[TraceItem, ...]:
    """Requests of some kilobytes, memoryless."""
    return poisson(count, rate_per_s=rate_per_s, seed=seed, **LENGTHS)
