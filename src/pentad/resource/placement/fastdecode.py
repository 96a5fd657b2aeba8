"""Dense layers on an accelerator, attention with its keys and values on many processors."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile
from pentad.ranges import in_range
from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.finish import finish
from pentad.resource.placement.operator_split import split_stage
from pentad.resource.placement.plan import Plan, Replica
from pentad.resource.placement.replicated import layer_speed


@dataclass(frozen=True, slots=True, kw_only=True)
class FastDecode:
    """One device holds the weights, all processors hold keys and values and attend to them, by their rates.

    So the batch is as large as the processors' memory allows, not the accelerator's. Two batches take turns:
    one goes through dense products while the other attends. The accelerator is the device that is no
    processor and is fastest; in a cluster of one kind the fastest stands for it. Cost: one prediction.

    Source: FastDecode (He and Zhai, 2024). Ours: keys and values are shared out over processors by sequences'
    parts and not by sequences; starts of sequences are left to the scheduler.
    """

    batches: int = 2
    """How many take turns; 1: each side waits for the other."""

    def __post_init__(self) -> None:
        in_range("batches", self.batches, least=1, most=8)

    @property
    def name(self) -> str:
        return "fastdecode"

    def plan(self, problem: PlacementProblem) -> Plan:
        devices = sorted(
            problem.cluster.devices, key=lambda d: (d.kind == "cpu", -layer_speed(problem, d), d.name)
        )
        if len(devices) < 2:
            raise Infeasible(
                "attention elsewhere needs a second device, the cluster has one",
                hint="add a processor, or choose --strategy single",
                param="devices",
            )
        dense, others = devices[0], devices[1:]
        helpers = [device.name for device in others if _processor(device)] or [d.name for d in others]
        stage = split_stage(problem, dense.name, helpers, batches=self.batches)
        return finish(self.name, problem, Replica(stages=(stage,)))


def _processor(device: DeviceProfile) -> bool:
    return device.kind == "cpu"
