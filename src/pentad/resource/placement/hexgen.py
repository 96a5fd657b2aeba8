"""Pipelines of unequal groups over unequal devices, by a genetic search."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from pentad.ranges import in_range
from pentad.resource.placement.allocation import Outcome, allocate
from pentad.resource.placement.auto import check_goal, refusal_of, replicas_of, starts
from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.finish import finish
from pentad.resource.placement.neighbours import Arrangement, neighbours
from pentad.resource.placement.plan import Plan
from pentad.resource.placement.workbench import Goal, Workbench


@dataclass(frozen=True, slots=True, kw_only=True)
class HexGen:
    """Each pipeline has its own number of stages, each stage its own tensor degree and layers.

    A population of arrangements; each generation changes every one of them once or twice at random (groups
    and pipelines merged, split, their devices swapped or moved) and keeps the best. Layers and requests of an
    arrangement are shared out by predictions. The same problem and seed get the same plan. Cost: `population`
    times `generations` arrangements, some ten predictions each.

    Source: HexGen (Jiang et al., ICML'24, section 4). Ours: layers by climbing in place of dynamic
    programming; the fitness is the predicted goal within the objective in place of simulated attainment.
    """

    goal: Goal = "throughput"
    """What the plan shall be best at, as for `auto`."""
    population: int = 16
    """Arrangements that are kept."""
    generations: int = 60
    """How often the population is changed."""
    seed: int = 0
    """Of the changes that are drawn."""

    def __post_init__(self) -> None:
        in_range("population", self.population, least=1)
        in_range("generations", self.generations, least=0)
        in_range("seed", self.seed, least=0)

    @property
    def name(self) -> str:
        return "hexgen"

    def plan(self, problem: PlacementProblem) -> Plan:
        check_goal(problem, self.goal)
        bench = Workbench(problem, self.goal)
        found = self._evolved(bench)
        if found is None:
            raise refusal_of(problem)
        return finish(self.name, problem, *replicas_of(bench, found))

    def _evolved(self, bench: Workbench) -> Outcome | None:
        devices = tuple(device.name for device in bench.problem.cluster.devices)
        judged: dict[Arrangement, Outcome | None] = {}

        def judge(found: Iterator[Arrangement]) -> list[Arrangement]:
            for at in found:
                if at not in judged and at.pipelines:
                    judged[at] = allocate(bench, at.pipelines, bench.problem.workload.concurrency)
            able = [(outcome.score, at) for at, outcome in judged.items() if outcome is not None]
            return [at for _, at in sorted(able)[: self.population]]

        draw = random.Random(self.seed)
        kept = judge(starts(bench, devices))
        for _ in range(self.generations if kept else 0):
            kept = judge(iter([_mutated(bench, at, draw) for at in kept]))
        return judged[kept[0]] if kept else None


def _mutated(bench: Workbench, at: Arrangement, draw: random.Random) -> Arrangement:
    """One change at random, half of the time a second one."""
    for _ in range(draw.choice((1, 2))):
        near = [one for one in neighbours(bench, at) if one.pipelines]
        at = draw.choice(near) if near else at
    return at
