"""Separate parallel plans for prompts and answers where that serves more, one plan for both where not."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.placement.auto import AutoPlacement
from pentad.resource.placement.base import PlacementPlanner, PlacementProblem
from pentad.resource.placement.chain import lined_up
from pentad.resource.placement.distserve import DistServe
from pentad.resource.placement.phase_pools import kinds_for_phases, largest_pools
from pentad.resource.placement.phase_rates import kinds_of
from pentad.resource.placement.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseAware:
    """Compares the requests per second within the objective of plans per phase and of one for both phases.

    The plan is that of `distserve`, or of `auto` where replicas that compute both phases serve more. Cost:
    that of both.

    Source: phase-specific parallelism of the survey (section V-B2); the rates are those of `distserve`.
    """

    replica_devices: int = 8
    """Devices of a replica, at most."""

    def __post_init__(self) -> None:
        in_range("replica_devices", self.replica_devices, least=1)

    @property
    def name(self) -> str:
        return "phase-aware"

    def plan(self, problem: PlacementProblem) -> Plan:
        apart, together = self.rates(problem)
        planners: list[PlacementPlanner] = [DistServe(replica_devices=self.replica_devices), AutoPlacement()]
        refusal: Infeasible | None = None
        for planner in planners if apart > together else planners[::-1]:
            try:
                return renamed(planner.plan(problem), self.name)
            except Infeasible as error:
                refusal = refusal or error
        assert refusal is not None, "both were tried"
        raise refusal

    def rates(self, problem: PlacementProblem) -> tuple[float, float]:
        """Requests per second within the objective with plans per phase, and with one for both phases."""
        names = [device.name for device in problem.cluster.devices]
        pools = largest_pools(kinds_for_phases(problem, most=self.replica_devices)) if names[1:] else None
        kinds = kinds_of(problem, ("both",), lined_up(problem.cluster, names))
        together = sum(kind.narrowed(self.replica_devices).best("both", len(kind.names))[0] for kind in kinds)
        return (0.0 if pools is None else pools.rate_per_s), together


def renamed(plan: Plan, name: str) -> Plan:
    """The plan as this strategy's own, with its decision."""
    decisions = tuple(replace(decision, policy=name) for decision in plan.decisions)
    return replace(plan, strategy=name, decisions=decisions)
