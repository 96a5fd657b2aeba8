"""Another strategy's plan under hard limits on which devices do what."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pentad.choice import Choice, build
from pentad.errors import Infeasible, UnknownName
from pentad.execution.device import Cluster
from pentad.registry import near
from pentad.resource.placement.base import PlacementPlanner, PlacementProblem
from pentad.resource.placement.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Constrained:
    """Leaves forbidden devices out; gives only plans that use what is required and keep texts where asked.

    The strategy plans for the devices that are allowed; where its plan breaks a limit, for those alone that
    may see texts or must be used. Memory, latency, cost and energy are the problem's own limits, which each
    strategy keeps. Cost: at most two plans of the strategy.

    Source: the constraints that the survey names for planners (section V-B); ours.
    """

    strategy: str = "auto"
    """Whose plan it is, as `--strategy` takes it."""
    forbidden: tuple[str, ...] = ()
    """Devices that run nothing."""
    required: tuple[str, ...] = ()
    """Devices that must run something."""
    texts_on: tuple[str, ...] = ()
    """Devices that may hold first and last layers, which see the texts themselves; empty: all."""

    @property
    def name(self) -> str:
        return "constrained"

    def plan(self, problem: PlacementProblem) -> Plan:
        names = [device.name for device in problem.cluster.devices]
        for name in (*self.forbidden, *self.required, *self.texts_on):
            if name not in names:
                raise UnknownName(
                    f"the cluster has no device {name!r}", hint=near(name, names), param="devices"
                )
        allowed = [name for name in names if name not in self.forbidden]
        narrow = [name for name in allowed if name in (*self.texts_on, *self.required)]
        planner: PlacementPlanner = build("placement", Choice.of(self.strategy))
        broken = ""
        refusal: Infeasible | None = None
        for kept in (allowed, narrow) if narrow else (allowed,):
            if not kept:
                break
            try:
                found = planner.plan(replace(problem, cluster=_only(problem.cluster, kept)))
            except Infeasible as error:
                refusal = refusal or error
                continue
            if not (broken := self._broken(found) or ""):
                decisions = tuple(replace(each, policy=self.name) for each in found.decisions)
                return replace(found, strategy=self.name, decisions=decisions)
        if refusal is not None and not broken:
            raise refusal
        raise Infeasible(
            broken or "every device of the cluster is forbidden",
            hint="relax the option that it names, or choose another strategy for the option strategy",
            param="devices",
        )

    def _broken(self, plan: Plan) -> str | None:
        """What of the limits a plan breaks."""
        used = {stage.device for stage in plan.stages}
        for name in self.required:
            if name not in used:
                return f"strategy {self.strategy!r} leaves device {name!r} idle, which is required"
        for replica in plan.replicas:
            ends = {stage.device for group in (replica.groups[0], replica.groups[-1]) for stage in group}
            if self.texts_on and (other := sorted(ends - set(self.texts_on))):
                return f"strategy {self.strategy!r} has device {other[0]!r} see texts, which texts_on forbids"
        return None


def _only(cluster: Cluster, names: list[str]) -> Cluster:
    """The cluster with these devices alone."""
    kept = set(names)
    return replace(
        cluster,
        devices=tuple(device for device in cluster.devices if device.name in kept),
        links=tuple(link for link in cluster.links if {link.source, link.target} <= kept),
    )
