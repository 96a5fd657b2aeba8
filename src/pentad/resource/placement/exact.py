"""The best plan of a small cluster, by trying every one: the judge of the planners that search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.finish import finish
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.plan import Plan, Replica, Stage
from pentad.resource.placement.predict import predict


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Pipelines on some devices with some requests, and the goal's sum; less is better."""

    value: float
    parts: tuple[tuple[int, tuple[Stage, ...]], ...]
    """Requests in flight and stages of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactPlacement:
    """The optimum over every division of the devices into pipelines of groups, their layers and requests.

    Tries each ordered pipeline of groups with equal shares on each set of devices, each layer split and each
    number of requests in flight, with the same predictions as other planners, and joins disjoint ones by
    dynamic programming over sets. Exact for goals that add up over replicas, under limits on latencies;
    limits on cost and energy are refused. Cost: exponential; meant for five devices and a dozen layers.

    Source: ours, as HexGen's and EdgeShard's authors judge their searches by brute force.
    """

    goal: Literal["throughput", "cost", "energy"] = "throughput"
    """What the plan is the best of."""
    devices: int = 5
    """Larger clusters are refused."""

    def __post_init__(self) -> None:
        in_range("devices", self.devices, least=1, most=8)

    @property
    def name(self) -> str:
        return "exact"

    def plan(self, problem: PlacementProblem) -> Plan:
        wishes, names = problem.objective, [device.name for device in problem.cluster.devices]
        if len(names) > self.devices:
            raise Infeasible(
                f"{len(names)} devices are too many to try every plan of, at most {self.devices}",
                hint="choose --strategy auto, or raise the option devices",
                param="devices",
            )
        if wishes.max_cost is not None or wishes.max_energy_j is not None:
            raise Infeasible(
                "limits on cost and energy do not hold replica by replica, so not every plan can be judged",
                hint="choose --strategy auto, or the goal cost or energy",
                param="max_cost",
            )
        best = self._best_of_each_set(problem, names)
        total = problem.workload.concurrency
        found = _joined(best, len(names), total)
        if found is None:
            raise Infeasible(
                f"none of all plans serves {total} requests of model {problem.spec.name!r} within memory and "
                "latencies",
                hint="add a device, set --weight-bits 4, lower --concurrency, or relax the latencies",
                param="memory",
            )
        replicas = [Replica(stages=stages, weight=count / total) for count, stages in found.parts]
        return finish(self.name, problem, *replicas)

    def _best_of_each_set(
        self, problem: PlacementProblem, names: Sequence[str]
    ) -> dict[tuple[int, int], _Found]:
        """By set of devices as bits and requests in flight: the best single pipeline on all of them."""
        best: dict[tuple[int, int], _Found] = {}
        for size in range(1, len(names) + 1):
            for chosen in itertools.combinations(range(len(names)), size):
                mask = sum(1 << i for i in chosen)
                for groups in _ordered_groups([names[i] for i in chosen], problem.spec.kv_heads):
                    for ends in _splits(problem.spec.layers, len(groups)):
                        for count in range(1, problem.workload.concurrency + 1):
                            found = self._tried(problem, groups, ends, count)
                            if found is None:
                                break  # more requests need more memory
                            known = best.get((mask, count))
                            if known is None or found.value < known.value:
                                best[mask, count] = found
        return best

    def _tried(
        self, problem: PlacementProblem, groups: Sequence[tuple[str, ...]], ends: Sequence[int], count: int
    ) -> _Found | None:
        """One pipeline; None where it does not fit, `inf` as value where a latency is exceeded."""
        load = replace(problem, workload=replace(problem.workload, concurrency=count))
        stages: list[Stage] = []
        for first, end, group in zip((0, *ends), ends, groups, strict=False):
            members = [(problem.cluster.device(name), 1 / len(group)) for name in group]
            stages += group_on(load, members, first, end)
        if any(stage.total_bytes > stage.usable_bytes for stage in stages):
            return None
        try:
            told = predict(load, Replica(stages=tuple(stages)))
        except Infeasible:
            return None
        wishes = problem.objective
        pairs = (
            (told.ttft_s, wishes.ttft_s),
            (told.inter_token_s, wishes.inter_token_s),
            (told.completion_s, wishes.deadline_s),
        )
        value = -told.throughput_tokens_per_s
        if self.goal != "throughput":
            value = told.device_s * count * self._rate(problem, groups)
        if any(asked is not None and took > asked for took, asked in pairs):
            value = float("inf")
        return _Found(value=value, parts=((count, tuple(stages)),))

    def _rate(self, problem: PlacementProblem, groups: Sequence[tuple[str, ...]]) -> float:
        devices = [problem.cluster.device(name) for group in groups for name in group]
        rates = [d.price_per_hour if self.goal == "cost" else d.power_w for d in devices]
        if None in rates:
            raise Infeasible(
                f"goal {self.goal!r} needs a device's price_per_hour or power_w, which is not known of all",
                hint="add it to the profile or the cluster file",
                param="goal",
            )
        return sum(rate for rate in rates if rate is not None)


def _ordered_groups(names: Sequence[str], kv_heads: int) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Every division of all names into groups in every order of the groups.

    The members of a group stand in the cluster's order; a ring of three and less is the same in any other.
    """
    if not names:
        yield ()
        return
    for size in range(1, len(names) + 1):
        if kv_heads % size:
            continue
        for group in itertools.combinations(names, size):
            rest = [name for name in names if name not in group]
            for others in _ordered_groups(rest, kv_heads):
                yield group, *others


def _splits(layers: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Where parts of at least one layer may end."""
    for inner in itertools.combinations(range(1, layers), parts - 1):
        yield *inner, layers


def _joined(best: dict[tuple[int, int], _Found], devices: int, requests: int) -> _Found | None:
    """The best disjoint pipelines that have all requests together."""
    # Over sets of devices that may be used and requests that are placed.
    table: dict[tuple[int, int], _Found] = {(0, 0): _Found(value=0.0, parts=())}
    for used in range(1 << devices):
        for placed in range(requests + 1):
            at = table.get((used, placed))
            if at is None:
                continue
            for (mask, count), found in best.items():
                if mask & used or placed + count > requests:
                    continue
                key, value = (used | mask, placed + count), at.value + found.value
                known = table.get(key)
                if known is None or value < known.value:
                    table[key] = _Found(value=value, parts=at.parts + found.parts)
    ends = [found for (_, placed), found in table.items() if placed == requests]
    able = [found for found in ends if found.value < float("inf")]
    return min(able, key=lambda found: found.value) if able else None
