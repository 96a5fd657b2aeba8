"""Pools of their own for prompts and answers, each with its own parallel plan, sized by goodput."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.finish import finish
from pentad.resource.placement.groups import check_shared_memory
from pentad.resource.placement.phase_pools import kinds_for_phases, largest_pools, replicas_of_pools
from pentad.resource.placement.plan import Plan, Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class DistServe:
    """Searches tensor and pipeline degrees per phase, and how many devices each phase gets.

    A shape's goodput is the rate at which nine requests in ten meet the time to first token, or the rate at
    the largest batch within the time between tokens. Each phase takes the shapes that serve most, and devices
    are divided so that neither pool waits for the other. Cost: some ten predictions per shape.

    Source: DistServe (Zhong et al., OSDI'24, algorithms 1 and 2). Ours: rates from step times and a queueing
    formula in place of a simulation per candidate; kinds of devices may differ.
    """

    replica_devices: int = 8
    """Devices of a replica, at most."""
    by_layer: bool = False
    """Whether keys and values are sent layer by layer while later layers are computed."""
    rebalance_s: float | None = None
    """How often replicas may be given to the other phase as the lengths of prompts and answers change, in
    seconds; None: never. For replicas that are alike."""

    def __post_init__(self) -> None:
        in_range("replica_devices", self.replica_devices, least=1)
        in_range("rebalance_s", self.rebalance_s, above=0)

    @property
    def name(self) -> str:
        return "distserve"

    def plan(self, problem: PlacementProblem) -> Plan:
        pools = largest_pools(kinds_for_phases(problem, most=self.replica_devices))
        if pools is None:
            raise no_pools(problem)
        replicas, handoffs = replicas_of_pools(problem, pools, by_layer=self.by_layer)
        check_fits(replicas)
        found = finish(self.name, problem, *replicas, handoffs=handoffs)
        return replace(found, rebalance_s=self.rebalance_s)


def no_pools(problem: PlacementProblem) -> Infeasible:
    """Why no devices serve one of the phases."""
    wishes = problem.objective
    asked = [f"{name} {value:g}" for name in ("ttft_s", "inter_token_s") if (value := getattr(wishes, name))]
    within = f" within {' and '.join(asked)}" if asked else ""
    return Infeasible(
        f"no division of the cluster's {len(problem.cluster.devices)} devices serves both the prompts and "
        f"the answers of model {problem.spec.name!r}{within}",
        hint="add devices, set --weight-bits 4, relax the latencies, or choose --strategy auto",
        param="devices",
    )


def check_fits(replicas: list[Replica]) -> None:
    """Raises Infeasible where a replica has no room for its requests at once."""
    for replica in replicas:
        check_shared_memory((replica,))
