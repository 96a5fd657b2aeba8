"""Requests per second that devices serve of one phase within the objective, for planners of phases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile
from pentad.resource.cost import chunks
from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.plan import Replica, Role, Stage
from pentad.resource.placement.predict import decoding, pipeline_cost, predict
from pentad.resource.placement.workbench import Groups, by_shares
from pentad.resource.step_shape import StepShape

MISSED = 0.1
"""Share of the requests that may miss the time to first token at the rate that counts as served."""
BUSIEST = 0.95
"""Share of its time that a prefill replica computes at most."""
MOST_SEQUENCES = 512
"""Sequences of one replica that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """So many equal devices: stages of a pipeline, each a group that splits layers."""

    tensor: int
    pipeline: int

    @property
    def devices(self) -> int:
        return self.tensor * self.pipeline

    def groups(self, names: Sequence[str]) -> Groups:
        """The devices in order, the first group first."""
        return tuple(tuple(names[i : i + self.tensor]) for i in range(0, self.devices, self.tensor))


def shapes(problem: PlacementProblem, most: int) -> Iterator[Shape]:
    """Those that divide the key/value heads and have a layer for each stage, on at most so many devices."""
    for tensor in (n for n in (1, 2, 4, 8) if n <= most and problem.spec.kv_heads % n == 0):
        for pipeline in range(1, min(most // tensor, problem.spec.layers, 8) + 1):
            yield Shape(tensor=tensor, pipeline=pipeline)


def stages_on(problem: PlacementProblem, groups: Groups) -> tuple[Stage, ...]:
    """Layers shared out evenly over groups of equal devices. Checks nothing."""
    counts = by_shares([1.0] * len(groups), [problem.spec.layers] * len(groups), problem.spec.layers)
    stages: list[Stage] = []
    first = 0
    for group, count in zip(groups, counts, strict=True):
        members = [(problem.cluster.device(name), 1 / len(group)) for name in group]
        stages += group_on(problem, members, first, first + count)
        first += count
    return tuple(stages)


def _fitting(problem: PlacementProblem, groups: Groups, requests: int, role: Role) -> Replica | None:
    """The replica with room for so many requests at once, None where memory or a link is missing."""
    load = replace(problem.workload, concurrency=requests)
    load = replace(load, new_tokens=1) if role == "prefill" else load
    stages = stages_on(replace(problem, workload=load), groups)
    if any(stage.total_bytes > stage.usable_bytes for stage in stages):
        return None
    return Replica(stages=stages, role=role)


def prefill_rate(problem: PlacementProblem, groups: Groups) -> float:
    """Prompts per second of which nine in ten have their first token in time; 0 where none has.

    Prompts come at random and wait for each other: an M/D/1 queue, whose waits are taken to have an
    exponential tail with their exact mean. Without a wish for the first token, what keeps it busy for 95%
    of the time.

    Source: the queueing analysis of DistServe (Zhong et al., OSDI'24, section 3.1), for a quantile in place
    of the mean.
    """
    replica = _fitting(problem, groups, 2, "prefill")
    if replica is None:
        return 0.0
    try:
        pipeline = pipeline_cost(problem, replica, remembered=True)
    except Infeasible:
        return 0.0
    load = problem.workload
    # One prompt after the other, as an engine steps: stages of a pipeline wait for each other.
    each_s = sum(
        pipeline.seconds(StepShape.prefill(tokens, cached=cached))
        for cached, tokens in chunks(load.prompt_tokens, load.max_batch_tokens)
    )
    return _rate_in_time(each_s, None if (wished := problem.objective.ttft_s) is None else wished - each_s)


def _rate_in_time(each_s: float, spare_s: float | None) -> float:
    """Requests per second of which nine in ten wait no longer than what is spare; each takes so long."""
    if spare_s is None:
        return BUSIEST / each_s
    if spare_s < 0:
        return 0.0
    low, high = 0.0, BUSIEST
    for _ in range(30):
        busy = (low + high) / 2
        late = busy * math.exp(-2 * (1 - busy) * spare_s / each_s)
        low, high = (busy, high) if late <= MISSED else (low, busy)
    return low / each_s


def decode_rate(problem: PlacementProblem, groups: Groups) -> float:
    """Answers per second with as many sequences at once as memory and the time between tokens allow."""
    return _most_served(problem, groups, "decode")


def whole_rate(problem: PlacementProblem, groups: Groups) -> float:
    """Requests per second where the same devices compute prompts and answers."""
    return _most_served(problem, groups, "both")


def _most_served(problem: PlacementProblem, groups: Groups, role: Role) -> float:
    """The rate at the largest number of sequences at once that is within memory and latencies."""
    tokens = problem.workload.new_tokens

    def rate(requests: int) -> float | None:
        replica = _fitting(problem, groups, requests, role)
        if replica is None:
            return None
        load = replace(problem, workload=replace(problem.workload, concurrency=requests))
        wishes = problem.objective
        try:
            if role == "both":
                told = predict(load, replica)
                spare_s = None if wishes.ttft_s is None else wishes.ttft_s - told.ttft_s
                # Others' prompts come between a request's tokens.
                others_s = (requests - 1) * (told.device_s - tokens * told.inter_token_s / requests)
                gap_s, served = told.inter_token_s + others_s / tokens, _rate_in_time(told.device_s, spare_s)
            else:
                gap_s, _ = decoding(load, replica.leaders, pipeline_cost(load, replica, remembered=True))
                served = requests / (tokens * gap_s)
        except Infeasible:
            return None
        if served <= 0 or (wishes.inter_token_s is not None and gap_s > wishes.inter_token_s):
            return None
        return served

    low, high = 0, MOST_SEQUENCES
    best = 0.0
    while low < high:
        middle = (low + high + 1) // 2
        found = rate(middle)
        if found is None:
            high = middle - 1
        else:
            low, best = middle, found
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Devices that differ in nothing but their names, and what each shape of them serves."""

    names: tuple[str, ...]
    device: DeviceProfile
    rates: dict[Role, dict[Shape, float]]
    price: float
    """Of a device for an hour; 1 where not all of the cluster's have one."""

    def narrowed(self, most: int) -> Kind:
        """The same without replicas of more devices."""
        rates = {
            role: {shape: rate for shape, rate in found.items() if shape.devices <= most}
            for role, found in self.rates.items()
        }
        return replace(self, rates=rates)

    def best(self, role: Role, count: int) -> tuple[float, tuple[Shape, ...]]:
        """The most that so many of them serve of a phase, and in which shapes: a knapsack over shapes."""
        table: list[tuple[float, tuple[Shape, ...]]] = [(0.0, ())]
        for held in range(1, count + 1):
            found = table[held - 1]
            for shape, rate in self.rates[role].items():
                if shape.devices <= held and rate > 0:
                    before = table[held - shape.devices]
                    if before[0] + rate > found[0] * (1 + 1e-9):
                        found = before[0] + rate, (*before[1], shape)
            table.append(found)
        return table[count]


def kinds_of(problem: PlacementProblem, roles: Sequence[Role], line: Sequence[str]) -> list[Kind]:
    """The cluster's devices by kind, in the line's order, with their rates."""
    by_kind: dict[int, list[str]] = {}
    for name in line:
        by_kind.setdefault(problem.costs.kind(problem.cluster.device(name)), []).append(name)
    prices = [device.price_per_hour for device in problem.cluster.devices]
    measure = {"prefill": prefill_rate, "decode": decode_rate, "both": whole_rate}
    return [
        Kind(
            names=tuple(names),
            device=(device := problem.cluster.device(names[0])),
            price=(device.price_per_hour or 0.0) if all(prices) else 1.0,
            rates={
                role: {
                    shape: measure[role](problem, shape.groups(names))
                    for shape in shapes(problem, len(names))
                }
                for role in roles
            },
        )
        for names in by_kind.values()
    ]
