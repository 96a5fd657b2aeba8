"""Volunteers that each host a range of layers, where the swarm is thinnest when they join."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.ranges import in_range
from pentad.resource.placement.auto import refusal_of
from pentad.resource.placement.base import PlacementProblem, replica_load, stage_on
from pentad.resource.placement.finish import finish
from pentad.resource.placement.layer_flow import device_rates
from pentad.resource.placement.plan import Plan, Replica
from pentad.resource.placement.swarm import Host, chains, joined_swarm, settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Petals:
    """Each volunteer hosts as many layers as it holds, where the swarm passes least; then some move.

    The swarm is as fast as its thinnest layer. Volunteers join in the cluster's order and move while that
    makes it faster by the share `gain`. Requests take ways through the swarm, each a replica with its part of
    the flow. What becomes of servers that fail is simulated in `simulator.chains`. Cost: for each move, a
    look at every volunteer and range.

    Source: Petals (Borzunov et al., 2023, section 3.2); ours: the ways are a division of the flow, where a
    client of the paper takes the quickest at that time.
    """

    gain: float = 0.2
    """Share by which the swarm must get faster for a volunteer to move."""

    def __post_init__(self) -> None:
        in_range("gain", self.gain, least=0)

    @property
    def name(self) -> str:
        return "petals"

    def plan(self, problem: PlacementProblem) -> Plan:
        found = chains(swarm_of(problem, gain=self.gain), problem.spec.layers)
        found = found[: problem.workload.concurrency]
        if not found:
            raise refusal_of(problem)
        total = sum(width for _, width in found)
        replicas = []
        for parts, width in found:
            load = replica_load(problem, width / total)
            stages = tuple(
                stage_on(load, problem.cluster.device(name), first, end) for name, first, end in parts
            )
            replicas.append(Replica(stages=stages, weight=width / total))
        return finish(self.name, problem, *replicas)


def swarm_of(problem: PlacementProblem, *, gain: float) -> list[Host]:
    """The devices as volunteers that have joined and settled; those that hold no layer are left out."""
    newcomers = []
    for device in problem.cluster.devices:
        rates = device_rates(problem, device.name)
        if rates:
            newcomers.append((device.name, len(rates), rates[-1] * problem.workload.new_tokens))
    if not newcomers:
        raise refusal_of(problem)
    layers = problem.spec.layers
    return settled(joined_swarm(newcomers, layers), layers, gain=gain)
