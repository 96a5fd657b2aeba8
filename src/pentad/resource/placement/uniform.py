"""Equal shares of the layers on every device, in the cluster's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.resource.placement.base import PlacementProblem, check_memory, stage_on
from pentad.resource.placement.finish import finish
from pentad.resource.placement.plan import Plan, Replica, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformPipeline:
    """A pipeline whose stages have the same number of layers, the first ones one more if need be.

    Blind to differences between devices; the baseline of the uneven strategies.

    Source: GPipe (Huang et al., NeurIPS'19), as pipeline-parallel inference engines split by default.
    """

    @property
    def name(self) -> str:
        return "uniform"

    def plan(self, problem: PlacementProblem) -> Plan:
        devices = problem.cluster.devices
        if len(devices) > problem.spec.layers:
            raise Infeasible(
                f"model {problem.spec.name!r} has {problem.spec.layers} layers, too few for an equal "
                f"split over {len(devices)} devices",
                hint=f"use at most {problem.spec.layers} devices",
                param="devices",
            )
        return finish(self.name, problem, Replica(stages=check_memory(problem, equal_stages)))


def equal_stages(problem: PlacementProblem) -> Sequence[Stage]:
    """Contiguous layer ranges whose sizes differ by at most one."""
    devices, layers = problem.cluster.devices, problem.spec.layers
    share, rest = divmod(layers, len(devices))
    stages = []
    first = 0
    for i, device in enumerate(devices):
        end = first + share + (i < rest)
        stages.append(stage_on(problem, device, first, end))
        first = end
    return stages
