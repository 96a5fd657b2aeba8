"""The default: devices lined up by their links and cut into pipelines, then changed while that helps."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.placement.allocation import Outcome, allocate, scored
from pentad.resource.placement.base import PlacementProblem, check_memory
from pentad.resource.placement.chain import cut, lined_up
from pentad.resource.placement.finish import finish
from pentad.resource.placement.neighbours import Arrangement, neighbours
from pentad.resource.placement.plan import Plan, Replica
from pentad.resource.placement.replicated import by_speed, layer_speed
from pentad.resource.placement.workbench import Goal, Groups, Trial, Workbench

_MANY_DEVICES = 10
"""From here on, changes are drawn at random, and only the pipelines that they touch are judged anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoPlacement:
    """Groups, pipelines and replicas of unequal devices, by a greedy start and a local search.

    Devices are lined up so that fast links join neighbours, and the line is cut into pipelines by dynamic
    programming over predictions. Then devices, groups and requests are moved while the goal gains. The same
    problem gets the same plan. Cost: at most `tries` arrangements beside the start, some ten predictions
    each. On small clusters its plans are compared with those of `exact`.

    Source: the space of plans is that of HexGen (Jiang et al., ICML'24) with equal shares in a group; the
    search is ours.
    """

    goal: Goal = "throughput"
    """What the plan shall be best at: `throughput`, `latency` of one request, or its `cost` or `energy`."""
    tries: int = 3000
    """Arrangements that the local search may try."""

    def __post_init__(self) -> None:
        in_range("tries", self.tries, least=0)

    @property
    def name(self) -> str:
        return "auto"

    def plan(self, problem: PlacementProblem) -> Plan:
        check_goal(problem, self.goal)
        bench = Workbench(problem, self.goal)
        found = _searched(bench, self.tries)
        if found is None:
            raise refusal_of(problem)
        return finish(self.name, problem, *replicas_of(bench, found))


def check_goal(problem: PlacementProblem, goal: Goal) -> None:
    """Raises Infeasible where what the goal counts is not known of every device."""
    needed = {"cost": "price_per_hour", "energy": "power_w"}.get(goal)
    for device in problem.cluster.devices if needed else ():
        if getattr(device, needed or "") is None:
            raise Infeasible(
                f"goal {goal!r} needs {needed}, which device {device.name!r} does not have in its profile",
                hint=f"add {needed} to the profile or the cluster file, or choose another goal",
                param="goal",
            )


def replicas_of(bench: Workbench, found: Outcome) -> list[Replica]:
    """The replicas of an outcome, those with most requests first."""
    total = sum(trial.concurrency for trial in found.trials)
    ordered = sorted(found.trials, key=lambda trial: -trial.concurrency)
    return [bench.replica(trial, total) for trial in ordered]


def refusal_of(problem: PlacementProblem) -> Infeasible:
    """Why not even all devices together hold the model, and what would help."""
    devices = sorted(problem.cluster.devices, key=lambda device: -layer_speed(problem, device))
    devices = devices[: problem.spec.layers]
    speeds = [layer_speed(problem, device) for device in devices]
    try:
        check_memory(problem, lambda changed: by_speed(changed, devices, speeds))
    except Infeasible as refusal:
        return refusal
    return Infeasible(
        f"no arrangement of the cluster's {len(problem.cluster.devices)} devices serves "
        f"{problem.workload.concurrency} requests of model {problem.spec.name!r} at once",
        hint="add links between the devices, set --weight-bits 4, or lower --concurrency",
        param="memory",
    )


def _searched(bench: Workbench, tries: int) -> Outcome | None:
    requests = bench.problem.workload.concurrency
    devices = tuple(device.name for device in bench.problem.cluster.devices)
    begun = list(dict.fromkeys(starts(bench, devices)))
    judged = [(out, at) for at in begun if (out := allocate(bench, at.pipelines, requests)) is not None]
    if not judged:
        return None
    judged.sort(key=lambda pair: pair[0].score)
    if len(devices) >= _MANY_DEVICES:
        return _drawn(bench, judged[0][0], tries)
    best, seen = judged[0][0], set[Arrangement]()
    for start, at in judged:
        best = min(best, _climbed(bench, start, at, seen, tries), key=lambda out: out.score)
    return best


def starts(bench: Workbench, devices: Sequence[str]) -> Iterator[Arrangement]:
    """Arrangements to begin with."""
    by_speed_ = sorted(devices, key=lambda name: (-bench.speed(name), name))
    for line in (lined_up(bench.problem.cluster, by_speed_), by_speed_):
        yield cut(bench, line)
    alone = [name for name in by_speed_ if bench.tried(((name,),), (bench.problem.spec.layers,), 1)]
    for name in alone[:3]:
        yield _rest_idle(devices, (((name,),),))
    if alone:
        yield _rest_idle(devices, tuple(((name,),) for name in alone))
    if len(devices) <= min(bench.problem.spec.layers, 4 * _MANY_DEVICES):
        yield _rest_idle(devices, (tuple((name,) for name in by_speed_),))
    if len(devices) < _MANY_DEVICES:
        for pair in itertools.combinations(by_speed_, 2):
            rest = tuple((name,) for name in by_speed_ if name not in pair)
            if bench.groupable(pair):
                yield from (Arrangement.of(((pair, *rest),)), Arrangement.of(((*rest, pair),)))


def _rest_idle(devices: Sequence[str], pipelines: tuple[Groups, ...]) -> Arrangement:
    used = {name for pipeline in pipelines for group in pipeline for name in group}
    return Arrangement.of(pipelines, tuple(name for name in devices if name not in used))


def _climbed(bench: Workbench, best: Outcome, at: Arrangement, seen: set[Arrangement], tries: int) -> Outcome:
    """Every neighbour is tried; the search goes on from the first better one."""
    requests = bench.problem.workload.concurrency
    better: Arrangement | None = at
    while better is not None:
        at, better = better, None
        for near in neighbours(bench, at):
            if near in seen or not near.pipelines:
                continue
            if len(seen) >= tries:
                return best
            seen.add(near)
            outcome = allocate(bench, near.pipelines, requests)
            if outcome is not None and outcome.score < best.score:
                best, better = outcome, near
                break
    return best


def _drawn(bench: Workbench, best: Outcome, tries: int) -> Outcome:
    """Changes drawn at random among a few pipelines at a time, whose requests they keep together."""
    draw = random.Random(0)
    objective = bench.problem.objective
    for _ in range(tries // len(bench.problem.cluster.devices)):
        count = min(2, len(best.trials))
        touched = draw.sample(range(len(best.trials)), count)
        part = [best.trials[i] for i in touched]
        used = {name for trial in best.trials for group in trial.groups for name in group}
        idle = [device.name for device in bench.problem.cluster.devices if device.name not in used]
        few = tuple(draw.sample(idle, min(2, len(idle))))
        near = _one_of(draw, list(neighbours(bench, Arrangement.of(tuple(t.groups for t in part), few))))
        if near is None:
            continue
        changed = allocate(bench, near.pipelines, sum(trial.concurrency for trial in part))
        if changed is None:
            continue
        kept: list[Trial] = [t for i, t in enumerate(best.trials) if i not in touched]
        outcome = scored([*kept, *changed.trials], bench.goal, objective)
        if outcome.score < best.score:
            best = outcome
    again = allocate(bench, [trial.groups for trial in best.trials], bench.problem.workload.concurrency)
    return best if again is None or again.score >= best.score else again


def _one_of(draw: random.Random, found: list[Arrangement]) -> Arrangement | None:
    able = [near for near in found if near.pipelines]
    return draw.choice(able) if able else None
