"""Every layer split over all devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pentad.errors import Infeasible
from pentad.resource.placement.base import PlacementProblem, check_memory
from pentad.resource.placement.finish import finish
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.plan import Plan, Replica, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorParallel:
    """One group of all devices, each with an equal share of the heads and feed-forward columns.

    Blind to differences between devices. Feasible where the devices divide the key/value heads and each
    has a link to the next, around. Cost: one prediction.

    Source: Megatron-LM (Shoeybi et al., 2019), two all-reduces a layer, as a ring.
    """

    split: Literal["tensor", "sequence"] = "tensor"
    """`sequence` splits norms and residuals over the tokens as well (Korthikanti et al., 2022)."""

    @property
    def name(self) -> str:
        return "tensor"

    def plan(self, problem: PlacementProblem) -> Plan:
        devices, spec = problem.cluster.devices, problem.spec
        if spec.kv_heads % len(devices):
            divisors = [n for n in range(1, len(devices)) if spec.kv_heads % n == 0]
            raise Infeasible(
                f"{len(devices)} devices do not divide the {spec.kv_heads} key/value heads of model "
                f"{spec.name!r} evenly",
                hint=f"use {' or '.join(map(str, divisors))} devices",
                param="devices",
            )

        def shared(changed: PlacementProblem) -> Sequence[Stage]:
            members = [(device, 1 / len(devices)) for device in changed.cluster.devices]
            return group_on(changed, members, 0, changed.spec.layers, split=self.split)

        return finish(self.name, problem, Replica(stages=check_memory(problem, shared)))
