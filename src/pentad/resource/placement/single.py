"""The whole model on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.resource.placement.base import PlacementProblem, check_memory, stage_on
from pentad.resource.placement.finish import finish
from pentad.resource.placement.plan import Plan, Replica, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleDevice:
    """Picks the device that generates most tokens per second among those that hold the model.

    Tries every device; cost: one prediction each. Ties go to the first.
    """

    @property
    def name(self) -> str:
        return "single"

    def plan(self, problem: PlacementProblem) -> Plan:
        plans: list[Plan] = []
        refusals: list[Infeasible] = []
        for device in problem.cluster.devices:

            def whole(changed: PlacementProblem, name: str = device.name) -> Sequence[Stage]:
                return (stage_on(changed, changed.cluster.device(name), 0, changed.spec.layers),)

            try:
                plans.append(finish(self.name, problem, Replica(stages=check_memory(problem, whole))))
            except Infeasible as refusal:
                refusals.append(refusal)
        if not plans:
            # The refusal of the last device that came furthest: speed is judged after memory.
            raise max(refusals, key=lambda refusal: refusal.param != "memory")
        return max(plans, key=lambda plan: plan.throughput_tokens_per_s)
