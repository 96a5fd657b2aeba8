"""Phases and operators on the devices that are best at them, ways between these counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.placement.auto import AutoPlacement, refusal_of
from pentad.resource.placement.base import PlacementPlanner, PlacementProblem
from pentad.resource.placement.distserve import DistServe
from pentad.resource.placement.finish import finish
from pentad.resource.placement.operator_split import split_stage
from pentad.resource.placement.phase_aware import renamed
from pentad.resource.placement.plan import Plan, Replica
from pentad.resource.placement.replicated import layer_speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Complementary:
    """Compares whole layers, phases and operators on devices of different kinds, and keeps what serves most.

    Candidates are the plan of `auto`, that of `distserve` for phases, and for operators each device for dense
    products with each set of others for attention, one batch or two that take turns. Every candidate pays for
    what it sends: activations, collectives, keys and values, queries and results. The plan with the highest
    predicted throughput within the objective wins; its decision tells the others. Cost: that of both
    strategies, and a prediction for each device and set, of the `devices` fastest.

    Source: ours, for the survey's inter-accelerator optimisation (section VII-A4).
    """

    devices: int = 6
    """The fastest of them are considered for operators, so many at most."""

    def __post_init__(self) -> None:
        in_range("devices", self.devices, least=1, most=10)

    @property
    def name(self) -> str:
        return "complementary"

    def plan(self, problem: PlacementProblem) -> Plan:
        found = list(self._candidates(problem))
        if not found:
            raise refusal_of(problem)
        best = max(found, key=lambda entry: entry[1].throughput_tokens_per_s)[1]
        told: dict[str, float] = {}
        for what, plan in found:
            told[what] = max(told.get(what, 0.0), round(plan.throughput_tokens_per_s, 4))
        own = renamed(best, self.name)
        decisions = tuple(
            replace(each, candidates=(*each.candidates, *told.items()))
            if each.subject == "placement"
            else each
            for each in own.decisions
        )
        return replace(own, decisions=decisions)

    def _candidates(self, problem: PlacementProblem) -> Iterator[tuple[str, Plan]]:
        whole: tuple[tuple[str, PlacementPlanner], ...] = (
            ("layers", AutoPlacement()),
            ("phases", DistServe(by_layer=True)),
        )
        for what, planner in whole:
            try:
                yield what, planner.plan(problem)
            except Infeasible:
                continue
        names = [
            device.name
            for device in sorted(problem.cluster.devices, key=lambda d: (-layer_speed(problem, d), d.name))[
                : self.devices
            ]
        ]
        for dense in names:
            others = [name for name in names if name != dense]
            for size in range(1, len(others) + 1):
                for helpers in itertools.combinations(others, size):
                    for batches in (1, 2):
                        try:
                            stage = split_stage(problem, dense, helpers, batches=batches)
                            yield "operators", finish(self.name, problem, Replica(stages=(stage,)))
                        except Infeasible:
                            continue
