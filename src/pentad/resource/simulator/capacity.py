"""Which machine runs which model under a load, how much load that bears, and what breaks first.

machines --divide--> parts --plan--> engines --simulate at rising rates--> highest load
                                               `--> the report just above it: what broke
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.device import Cluster
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import ModelSpec
from pentad.ranges import in_range
from pentad.resource.placement.base import PlacementPlanner, PlacementProblem, Workload
from pentad.resource.placement.plan import Plan
from pentad.resource.simulator.fleet_report import EngineReport, FleetReport
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.trace import TraceItem, rescaled
from pentad.types import Objective

_MOST_TRIED = 512
"""Divisions of machines between models that are all tried; where there are more, a few even ones are."""
_IN_FLIGHT = 8
"""Requests for each machine that plans are compared for: more machines then bear more."""
_FACTOR_LIMIT = 1024.0
_HALVINGS = 5
_BUSY = 0.9
"""Share of its time in steps from which on an engine counts as busy."""


def dealt(items: Sequence[TraceItem], models: Sequence[str]) -> tuple[TraceItem, ...]:
    """The load with a model for every item: its own, or where it names none, in turn, a run's alike.

    Raises InvalidRequest for an item of a model that is not among these.
    """
    turns: dict[str, str] = {}
    found = []
    for item in items:
        if item.model and item.model not in models:
            raise InvalidRequest(
                f"the load asks for model {item.model!r}, which is not planned for",
                hint=f"add it to --models; planned are {', '.join(models)}",
                param="models",
            )
        name = item.root or item.run or item.id
        model = item.model or turns.setdefault(name, models[len(turns) % len(models)])
        found.append(replace(item, model=model))
    return tuple(found)


def mean_request(items: Sequence[TraceItem], concurrency: int) -> Workload:
    """Requests of the load's mean lengths, so many in flight."""
    return Workload(
        prompt_tokens=round(sum(item.prompt_tokens for item in items) / len(items)),
        new_tokens=round(sum(item.output_tokens for item in items) / len(items)),
        concurrency=concurrency,
    )


def divide(
    specs: Sequence[ModelSpec],
    cluster: Cluster,
    items: Sequence[TraceItem],
    planner: PlacementPlanner,
    problem: Callable[[ModelSpec, Cluster, Workload], PlacementProblem],
) -> list[Plan]:
    """A plan for each model on its own part of the machines, so that the least served is served most.

    How well a model is served is its plan's predicted tokens per second over the tokens that the load asks of
    it. All divisions of few machines are tried; of many, some even ones. One model has all machines.

    Args:
        items: each names its model.
        problem: of a model on a part of the cluster.

    Raises Infeasible where no division gives every model a plan.
    """
    loads = {spec.name: [item for item in items if item.model == spec.name] for spec in specs}
    idle = [name for name, own in loads.items() if not own]
    if idle:
        raise InvalidRequest(
            f"the load has no request for {idle[0]!r}", hint="raise --limit, or leave the model out"
        )
    asked = {name: sum(item.output_tokens for item in own) for name, own in loads.items()}
    known: dict[tuple[str, tuple[str, ...]], Plan | Infeasible] = {}

    def planned(spec: ModelSpec, names: tuple[str, ...]) -> Plan | Infeasible:
        key = spec.name, names
        if key not in known:
            try:
                load = mean_request(loads[spec.name], _IN_FLIGHT * len(names))
                known[key] = planner.plan(problem(spec, part(cluster, names), load))
            except Infeasible as error:
                known[key] = error
        return known[key]

    best: tuple[float, list[Plan]] | None = None
    refusal = Infeasible(
        f"{len(specs)} models need as many machines at least, the cluster has {len(cluster.devices)}",
        hint="name fewer models, or add machines",
        param="models",
    )
    for division in _divisions(len(specs), [device.name for device in cluster.devices]):
        plans: list[Plan] = []
        for spec, names in zip(specs, division, strict=True):
            found = planned(spec, names) if names else refusal
            if isinstance(found, Infeasible):
                refusal = found
                break
            plans.append(found)
        if len(plans) < len(specs):
            continue
        service = min(
            plan.throughput_tokens_per_s / asked[spec.name] for spec, plan in zip(specs, plans, strict=True)
        )
        if best is None or service > best[0]:
            best = service, plans
    if best is None:
        raise refusal
    return best[1]


def part(cluster: Cluster, names: Sequence[str]) -> Cluster:
    """The cluster of these devices and the links between them."""
    kept = set(names)
    return replace(
        cluster,
        devices=tuple(device for device in cluster.devices if device.name in kept),
        links=tuple(link for link in cluster.links if {link.source, link.target} <= kept),
    )


def _divisions(models: int, devices: Sequence[str]) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Ways to give each device to one of the models."""
    if models == 1:
        yield (tuple(devices),)
        return
    if models ** len(devices) <= _MOST_TRIED:
        owners: Iterator[tuple[int, ...]] = itertools.product(range(models), repeat=len(devices))
    else:  # blocks and every n-th, with each model first in turn: few, and even
        count = len(devices)
        shifts, places = range(models), range(count)
        even = [tuple((i + shift) % models for i in places) for shift in shifts]
        blocks = [tuple((i * models // count + shift) % models for i in places) for shift in shifts]
        owners = iter((*even, *blocks))
    for chosen in owners:
        yield tuple(
            tuple(name for name, owner in zip(devices, chosen, strict=True) if owner == model)
            for model in range(models)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """What goes wrong first when the load rises."""

    rate_per_s: float
    """At which it was seen."""
    missed: str
    """The field of the objective that most requests miss, or the code with which they were refused."""
    share: float
    """Of all requests, those that miss it."""
    engine: str
    """Whose requests miss it most often; empty where none has any."""
    limit: str
    """What of the engine is used up: `KV blocks`, `prompts`, `answers`, `places`, `waiting room`, or
    `nothing` where even requests by themselves take too long."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How much of a load is borne, and what breaks when there is more."""

    own_per_s: float
    """Requests per second of the load as it is."""
    highest_per_s: float | None
    """The most at which the share of requests is served as wished; None: not even the lowest rate tried."""
    at_highest: FleetReport | None
    breaks: Break | None
    """None where no rate tried was too high."""


def capacity(
    items: Sequence[TraceItem],
    replay: Callable[[Sequence[TraceItem]], FleetReport],
    objective: Objective,
    *,
    share: float = 0.9,
    limits: EngineLimits,
) -> Capacity:
    """Simulates a load at rising, or falling, rates and narrows the highest one down that is served well.

    Args:
        items: with two arrivals at least.
        replay: simulates under the objective.
        share: of requests that must meet it.
        limits: of each engine.

    Raises InvalidRequest for a load without a duration.
    """
    in_range("share", share, above=0, most=1)
    span_s = max(item.arrival_s for item in items) - min(item.arrival_s for item in items)
    if not span_s > 0:
        raise InvalidRequest(
            f"the load's {len(items)} requests all arrive at once, so it has no rate to change",
            hint="raise --limit, or give another trace",
        )
    own_per_s = (sum(not item.waits_for for item in items) - 1) / span_s or 1 / span_s

    def at(factor: float) -> FleetReport:
        return replay(rescaled(items, factor))

    low: tuple[float, FleetReport] | None = None
    high: tuple[float, FleetReport] | None = None
    factor = 1.0
    while 1 / _FACTOR_LIMIT <= factor <= _FACTOR_LIMIT and (low is None or high is None):
        report = at(factor)
        if report.total.attainment >= share:
            low = factor, report
            factor *= 2
        else:
            high = factor, report
            factor /= 2
        if low is not None and high is not None:
            break
    if low is not None and high is not None:
        for _ in range(_HALVINGS):
            middle = math.sqrt(low[0] * high[0])
            report = at(middle)
            if report.total.attainment >= share:
                low = middle, report
            else:
                high = middle, report
    return Capacity(
        own_per_s=own_per_s,
        highest_per_s=None if low is None else low[0] * own_per_s,
        at_highest=None if low is None else low[1],
        breaks=None if high is None else _break(high[1], objective, high[0] * own_per_s, limits),
    )


def _break(report: FleetReport, objective: Objective, rate_per_s: float, limits: EngineLimits) -> Break:
    records = report.total.records
    missed: Counter[str] = Counter()
    by_engine: Counter[str] = Counter()
    for record in records:
        if not record.meets(objective):
            missed.update(_missed(record, record.item.objective or objective))
            by_engine[record.engine] += 1
    name, count = missed.most_common(1)[0]
    given = {engine.name: engine.given for engine in report.engines}
    worst = max(by_engine, key=lambda engine: by_engine[engine] / max(1, given.get(engine, 1)))
    own = next((engine for engine in report.engines if engine.name == worst), None)
    return Break(
        rate_per_s=rate_per_s,
        missed=name,
        share=count / len(records),
        engine=worst,
        limit="nothing" if own is None else _limit(own, limits),
    )


def _missed(record: RequestRecord, objective: Objective) -> list[str]:
    """The fields of the objective that the request misses, or why it was refused."""
    if record.refusal is not None or not record.completed:
        return [record.refusal or "unfinished"]
    gaps = record.gaps_s
    seen = {
        "ttft_s": record.ttft_s,
        "inter_token_s": sum(gaps) / len(gaps) if gaps else 0.0,
        "deadline_s": record.completion_s,
        "max_cost": record.cost,
    }
    limits = {name: getattr(objective, name) for name in seen}
    return [name for name, limit in limits.items() if limit is not None and seen[name] > limit]


def _limit(engine: EngineReport, limits: EngineLimits) -> str:
    records = engine.report.records
    if any(record.preemptions for record in records):
        return "KV blocks"
    if any(record.refusal == "overloaded" for record in records):
        return "waiting room"
    if engine.utilisation >= _BUSY or engine.report.utilisation >= _BUSY:
        prompts = sum(record.item.prompt_tokens - record.cached_tokens for record in records)
        chunks = prompts / limits.max_batch_tokens
        return "prompts" if chunks > engine.report.steps / 2 else "answers"
    if _most_at_once(engine) >= limits.max_sequences:
        return "places"
    return "nothing"


def _most_at_once(engine: EngineReport) -> int:
    """Requests that the engine had at once at most."""
    ends = [(record.finished_s, -1) for record in engine.report.records if record.finished_s is not None]
    events = sorted([*ends, *((record.arrived_s, 1) for record in engine.report.records if record.completed)])
    return max(itertools.accumulate(change for _, change in events), default=0)
