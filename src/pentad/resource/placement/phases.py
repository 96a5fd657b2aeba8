"""Prompts on some devices, answers on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile
from pentad.ranges import in_range
from pentad.resource.placement.base import PlacementProblem, check_memory, replica_load, stage_on
from pentad.resource.placement.finish import finish
from pentad.resource.placement.plan import Plan, Replica, Role, Stage
from pentad.resource.placement.replicated import layer_speed


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparatePhases:
    """Gives each phase devices of its own that hold the whole model, those that compute most the prompts.

    Tries every number of prefill devices, or the one asked for, and keeps the plan with the highest
    predicted throughput that meets the objective. Within a phase requests flow by decoding speed. Cost: a
    prediction per device for every number tried.

    Source: DistServe (Zhong et al., OSDI'24) and Splitwise (Patel et al., ISCA'24), without a parallel
    plan per phase and with a prediction in place of a simulated goodput.
    """

    prefill_devices: int | None = None
    """How many compute prompts; None tries all numbers."""

    def __post_init__(self) -> None:
        in_range("prefill_devices", self.prefill_devices, least=1)

    @property
    def name(self) -> str:
        return "phases"

    def plan(self, problem: PlacementProblem) -> Plan:
        devices = sorted(problem.cluster.devices, key=lambda d: -max(d.flops_per_s.values(), default=0.0))
        asked = self.prefill_devices
        if len(devices) < (asked or 1) + 1:
            raise Infeasible(
                f"{asked or 1} devices for prompts and one for answers are more than the cluster's "
                f"{len(devices)}",
                hint="add a device, or choose a --strategy whose replicas compute both phases",
                param="devices",
            )
        refusal: Infeasible | None = None
        best: Plan | None = None
        for count in [asked] if asked else range(1, len(devices)):
            try:
                replicas = [
                    *_phase(problem, devices[:count], "prefill"),
                    *_phase(problem, devices[count:], "decode"),
                ]
                found = finish(self.name, problem, *replicas)
            except Infeasible as error:
                refusal = refusal or error
                continue
            if best is None or found.throughput_tokens_per_s > best.throughput_tokens_per_s:
                best = found
        if best is None:
            assert refusal is not None, "some number was tried"
            raise refusal
        return best


def _phase(problem: PlacementProblem, devices: Sequence[DeviceProfile], role: Role) -> list[Replica]:
    """A replica on each device, with its share of the requests of a phase."""
    speeds = [layer_speed(problem, device) for device in devices]
    found = []
    for device, speed in zip(devices, speeds, strict=True):
        weight = speed / sum(speeds)

        def whole(changed: PlacementProblem, name: str = device.name) -> Sequence[Stage]:
            return (stage_on(changed, changed.cluster.device(name), 0, changed.spec.layers),)

        stages = check_memory(replica_load(problem, weight, role), whole)
        found.append(Replica(stages=stages, weight=weight, role=role))
    return found
