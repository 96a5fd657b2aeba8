"""Several copies of the model, each a pipeline over devices of unequal speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.device import DeviceProfile
from pentad.resource.placement.base import PlacementProblem, check_memory, replica_load, stage_cost, stage_on
from pentad.resource.placement.finish import finish
from pentad.resource.placement.plan import Plan, Replica, Stage
from pentad.resource.step_shape import StepShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicated:
    """Shares the devices out to replicas of nearly equal speed, and layers within each by speed.

    The fastest device left goes to the slowest replica so far; requests flow to replicas in
    proportion to their speed. Cost: one prediction per device and one per replica. Ties go to the
    first. Blind to links: devices of a replica keep the cluster's order.

    Source: the replica and layer split of HexGen (Jiang et al., ICML'24) with a greedy partition
    (longest processing time first) in place of its genetic search.
    """

    replicas: int = 2
    """Copies of the model."""

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise InvalidRequest(f"replicas is {self.replicas}, must be at least 1", param="replicas")

    @property
    def name(self) -> str:
        return "replicated"

    def plan(self, problem: PlacementProblem) -> Plan:
        devices = problem.cluster.devices
        if len(devices) < self.replicas:
            raise Infeasible(
                f"{self.replicas} replicas need as many devices, the cluster has {len(devices)}",
                hint=f"set replicas to {len(devices)} or add a device",
                param="replicas",
            )
        speeds = {device.name: layer_speed(problem, device) for device in devices}
        groups: list[list[DeviceProfile]] = [[] for _ in range(self.replicas)]
        for device in sorted(devices, key=lambda device: -speeds[device.name]):
            # The first of those without a device, then the slowest.
            min(groups, key=lambda group: sum(speeds[d.name] for d in group)).append(device)
        total = sum(speeds.values())
        found = []
        for group in groups:
            members = [device for device in devices if device in group]
            weight = sum(speeds[device.name] for device in members) / total

            def layout(
                changed: PlacementProblem, members: Sequence[DeviceProfile] = tuple(members)
            ) -> Sequence[Stage]:
                return by_speed(changed, members, [speeds[device.name] for device in members])

            stages = check_memory(replica_load(problem, weight), layout)
            found.append(Replica(stages=stages, weight=weight))
        return finish(self.name, problem, *found)


def layer_speed(problem: PlacementProblem, device: DeviceProfile) -> float:
    """Layers per second while decoding one sequence."""
    context = problem.workload.prompt_tokens + problem.workload.new_tokens // 2
    return 1 / stage_cost(problem, stage_on(problem, device, 0, 1)).seconds(StepShape.decode(1, context))


def by_speed(
    problem: PlacementProblem, devices: Sequence[DeviceProfile], speeds: Sequence[float]
) -> tuple[Stage, ...]:
    """A pipeline whose stages hold layers in proportion to their device's speed, one at least.

    Raises Infeasible for more devices than layers.
    """
    layers = problem.spec.layers
    if len(devices) > layers:
        raise Infeasible(
            f"model {problem.spec.name!r} has {layers} layers, too few for {len(devices)} stages",
            hint=f"use at most {layers} devices in a replica",
            param="devices",
        )
    shares = [(layers - len(devices)) * speed / sum(speeds) for speed in speeds]
    counts = [1 + int(share) for share in shares]
    rest = layers - sum(counts)
    largest = sorted(range(len(devices)), key=lambda i: int(shares[i]) - shares[i])
    for i in largest[:rest]:
        counts[i] += 1
    stages, first = [], 0
    for device, count in zip(devices, counts, strict=True):
        stages.append(stage_on(problem, device, first, first + count))
        first += count
    return tuple(stages)
