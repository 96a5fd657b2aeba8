"""Layers placed so that the flow of requests is largest; each request takes a path of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.placement.base import PlacementProblem, replica_load, stage_on
from pentad.resource.placement.finish import finish
from pentad.resource.placement.layer_flow import LayerFlow, solve
from pentad.resource.placement.plan import Plan, Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Helix:
    """Solves a mixed-integer program for the layers of each device, and splits the largest flow into paths.

    Devices pass requests at the rate that their layers allow, links at the rate that they carry activations;
    a device may run only the later part of its layers for a request. Each path is a replica with its share of
    the flow, which `--offload flow` gives it (interleaved weighted round-robin). Devices that several paths
    share take turns between them, where the paper batches them together. The decision tells the flow and the
    solver's bound. Cost: seconds for ten devices, up to `seconds`; needs the extra `milp`.

    Source: Helix (Mei et al., ASPLOS'25, sections 4 and 5), solved with HiGHS in place of Gurobi.
    """

    degree: int = 12
    """Links of a device that are looked at, the fastest ones."""
    gap: float = 0.02
    """How close to its bound the solver may stop, as a share."""
    seconds: float = 60.0
    """After which it stops with the best placement so far, which then depends on the machine."""
    devices: int = 40
    """Larger clusters are refused."""

    def __post_init__(self) -> None:
        in_range("degree", self.degree, least=1)
        in_range("gap", self.gap, least=0, most=1)
        in_range("seconds", self.seconds, above=0)
        in_range("devices", self.devices, least=1)

    @property
    def name(self) -> str:
        return "helix"

    def plan(self, problem: PlacementProblem) -> Plan:
        count = len(problem.cluster.devices)
        if count > self.devices:
            raise Infeasible(
                f"{count} devices are too many for a mixed-integer program, at most {self.devices}",
                hint="choose --strategy auto, or raise the option devices",
                param="devices",
            )
        flow = solve(problem, degree=self.degree, gap=self.gap, seconds=self.seconds)
        plan = finish(self.name, problem, *replicas_of_flow(problem, flow))
        told = (("flow_per_s", round(flow.per_s, 6)), ("bound_per_s", round(flow.bound_per_s, 6)))
        decisions = tuple(replace(each, candidates=each.candidates + told) for each in plan.decisions)
        return replace(plan, decisions=decisions)


def replicas_of_flow(problem: PlacementProblem, flow: LayerFlow) -> list[Replica]:
    """A replica for each path, as far as there are requests for all of them; the widest paths first."""
    paths = flow.paths()[: problem.workload.concurrency]
    total = sum(width for _, width in paths)
    replicas = []
    for stages, width in paths:
        load = replica_load(problem, width / total)
        parts = tuple(stage_on(load, problem.cluster.device(name), first, end) for name, first, end in stages)
        replicas.append(Replica(stages=parts, weight=width / total))
    return replicas
