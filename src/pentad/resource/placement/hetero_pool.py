"""The kinds of devices, of a mixed pool, that serve most for their price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pentad.ranges import in_range
from pentad.resource.placement.base import PlacementProblem, replica_load
from pentad.resource.placement.chain import lined_up
from pentad.resource.placement.distserve import check_fits, no_pools
from pentad.resource.placement.finish import finish
from pentad.resource.placement.phase_pools import cheapest_pools, replicas_of_pools
from pentad.resource.placement.phase_rates import Kind, Shape, kinds_of, stages_on
from pentad.resource.placement.plan import Plan, Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class HeteroPool:
    """Maps prompts and answers to kinds of devices so that a unit of money serves most requests in time.

    Without a price for every device each counts alike. Compares pools of two kinds with replicas of one kind
    that compute both phases, all by their rates within the objective; devices that would lower the requests
    for the money stand idle. Cost: some ten predictions per kind and shape, and a comparison per pair of
    kinds and numbers of devices.

    Source: ours, after Splitwise (ISCA'24) for two phases and Mélange (Griggs et al., 2024) for the choice of
    kinds by price.
    """

    replica_devices: int = 8
    """Devices of a replica, at most."""

    def __post_init__(self) -> None:
        in_range("replica_devices", self.replica_devices, least=1)

    @property
    def name(self) -> str:
        return "hetero-pool"

    def plan(self, problem: PlacementProblem) -> Plan:
        names = [device.name for device in problem.cluster.devices]
        kinds = kinds_of(problem, ("prefill", "decode", "both"), lined_up(problem.cluster, names))
        kinds = [kind.narrowed(self.replica_devices) for kind in kinds]
        pools = cheapest_pools(kinds)
        whole = _cheapest_whole(kinds)
        parted = 0.0 if pools is None else pools.rate_per_s / pools.price
        if whole is None and pools is None:
            raise no_pools(problem)
        if whole is not None and whole[0] >= parted:
            replicas = _whole_replicas(problem, *whole[1:])
            check_fits(replicas)
            return finish(self.name, problem, *replicas)
        assert pools is not None, "one of both serves requests"
        replicas, handoffs = replicas_of_pools(problem, pools, by_layer=True)
        check_fits(replicas)
        return finish(self.name, problem, *replicas, handoffs=handoffs)


def _cheapest_whole(kinds: Sequence[Kind]) -> tuple[float, Kind, tuple[Shape, ...]] | None:
    """The kind whose replicas serve most whole requests for their price, with the rate per price."""
    best: tuple[float, Kind, tuple[Shape, ...]] | None = None
    for kind in kinds:
        rate, found = kind.best("both", len(kind.names))
        used = sum(shape.devices for shape in found)
        if used:
            worth = rate / (used * kind.price)
            if best is None or worth > best[0]:
                best = worth, kind, found
    return best


def _whole_replicas(problem: PlacementProblem, kind: Kind, found: Sequence[Shape]) -> list[Replica]:
    total = sum(kind.rates["both"][shape] for shape in found)
    names, replicas = list(kind.names), []
    for shape in found:
        weight = kind.rates["both"][shape] / total
        stages = stages_on(replica_load(problem, weight), shape.groups(names))
        replicas.append(Replica(stages=stages, weight=weight))
        names = names[shape.devices :]
    return replicas
