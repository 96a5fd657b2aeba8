"""Groups that split layers, lined up to pipelines that repeat: three kinds of parallelism at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile
from pentad.ranges import in_range
from pentad.resource.placement.base import PlacementProblem, check_memory, replica_load
from pentad.resource.placement.finish import finish
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.plan import Plan, Replica, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """As many equal pipelines of equal groups as the cluster has room for, each as short as memory allows.

    Devices are taken in the cluster's order, which should list those of a node beside each other: the first
    group is the first stage of the first pipeline. A group splits heads and feed-forward columns, a stage
    holds the same number of layers as the others, or one more. Blind to differences between devices; those
    that are left over stand idle. Cost: one layout for each length of a pipeline that is tried.

    Source: Narayanan et al. 2021 (Megatron-LM, PTD-P) and Smith et al. 2022 (MT-NLG): tensor parallelism
    within a node, pipelines over nodes, data parallelism over these.
    """

    group: int = 8
    """Devices that split a layer, at most: fewer where they do not divide the key/value heads."""

    def __post_init__(self) -> None:
        in_range("group", self.group, least=1)

    @property
    def name(self) -> str:
        return "grid"

    def plan(self, problem: PlacementProblem) -> Plan:
        devices = problem.cluster.devices
        most = min(self.group, len(devices))
        size = max(n for n in range(1, most + 1) if problem.spec.kv_heads % n == 0)
        groups = [devices[i : i + size] for i in range(0, len(devices) - size + 1, size)]
        refused: Infeasible | None = None
        for length in range(1, min(len(groups), problem.spec.layers) + 1):
            count = len(groups) // length
            load = replica_load(problem, 1 / count)
            try:
                replicas = [
                    _pipeline(load, groups[i * length : (i + 1) * length], 1 / count) for i in range(count)
                ]
            except Infeasible as error:
                refused = error
                continue
            return finish(self.name, problem, *replicas)
        assert refused is not None  # one length is always tried
        raise refused


def _pipeline(load: PlacementProblem, groups: Sequence[Sequence[DeviceProfile]], weight: float) -> Replica:
    """A replica whose stages are the groups. Raises Infeasible where one is too small."""

    def layout(problem: PlacementProblem) -> Sequence[Stage]:
        ends = [problem.spec.layers * (i + 1) // len(groups) for i in range(len(groups))]
        stages: list[Stage] = []
        for first, end, members in zip((0, *ends), ends, groups, strict=False):
            stages += group_on(problem, [(device, 1 / len(members)) for device in members], first, end)
        return stages

    return Replica(stages=check_memory(load, layout), weight=weight)
