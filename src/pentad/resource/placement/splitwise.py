"""Machines of different hardware for prompts and for answers, with keys and values sent layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.distserve import check_fits, no_pools
from pentad.resource.placement.finish import finish
from pentad.resource.placement.phase_pools import kinds_for_phases, largest_pools, replicas_of_pools
from pentad.resource.placement.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitwise:
    """Gives prompts to the kinds of machines that are best at them against answers, answers to the others.

    A device is a machine that holds the whole model. Pools are sized so that neither waits for the other.
    Keys and values go over the link while later layers are computed, so that the last layer's alone are
    waited for. Cost: some ten predictions per kind of device.

    Source: Splitwise (Patel et al., ISCA'24): its prompt and token pools, heterogeneous clusters and
    layer-wise transfer. Without its mixed pool; sizes come from rates instead of a simulated search.
    """

    @property
    def name(self) -> str:
        return "splitwise"

    def plan(self, problem: PlacementProblem) -> Plan:
        pools = largest_pools(kinds_for_phases(problem, most=1))
        if pools is None:
            raise no_pools(problem)
        replicas, handoffs = replicas_of_pools(problem, pools, by_layer=True)
        check_fits(replicas)
        return finish(self.name, problem, *replicas, handoffs=handoffs)
