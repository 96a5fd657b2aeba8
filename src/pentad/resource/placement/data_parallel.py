"""A copy of the model on every device that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile
from pentad.resource.placement.base import PlacementProblem, check_memory, replica_load, stage_on
from pentad.resource.placement.finish import finish
from pentad.resource.placement.plan import Plan, Replica, Stage
from pentad.resource.placement.replicated import layer_speed


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParallel:
    """A replica on every device that holds the whole model; requests in proportion to decoding speed.

    Devices that cannot hold the model with their share of the requests are left out. Cost: two
    memory checks and one prediction per device.

    Source: data parallelism of serving systems; the shares by speed are ours.
    """

    @property
    def name(self) -> str:
        return "data-parallel"

    def plan(self, problem: PlacementProblem) -> Plan:
        speeds = {device.name: layer_speed(problem, device) for device in problem.cluster.devices}
        refusal: Infeasible | None = None
        kept = list(problem.cluster.devices)
        # Who is left out leaves more requests to the others, which may then not hold theirs.
        while kept:
            total = sum(speeds[device.name] for device in kept)
            replicas = []
            for device in tuple(kept):
                try:
                    replicas.append(_replica(problem, device, speeds[device.name] / total))
                except Infeasible as error:
                    refusal = refusal or error
                    kept.remove(device)
            if len(replicas) == len(kept) and sum(r.weight for r in replicas) > 1 - 1e-9:
                return finish(self.name, problem, *replicas)
        assert refusal is not None, "a cluster has devices"
        raise refusal


def _replica(problem: PlacementProblem, device: DeviceProfile, weight: float) -> Replica:
    def whole(changed: PlacementProblem) -> Sequence[Stage]:
        return (stage_on(changed, changed.cluster.device(device.name), 0, changed.spec.layers),)

    return Replica(stages=check_memory(replica_load(problem, weight), whole), weight=weight)
