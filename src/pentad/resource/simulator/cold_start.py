"""How long a replica takes from its start to its first step."""

from __future__ import annotations

from pentad.execution.device import Cluster
from pentad.resource.placement.plan import Replica

DISK_BYTES_PER_S = 1e9
"""Assumed of a device whose profile has no disk."""


def cold_start_s(cluster: Cluster, replica: Replica) -> float:
    """Until the slowest of its devices is ready: its own cold start, or its weights from its disk."""

    def seconds(device: str, weight_bytes: float) -> float:
        profile = cluster.device(device)
        disk = next((t.read_bytes_per_s for t in profile.memory if t.name == "disk"), DISK_BYTES_PER_S)
        return profile.extra.get("cold_start_s", weight_bytes / disk)

    return max(seconds(stage.device, stage.weight_bytes) for stage in replica.stages)
