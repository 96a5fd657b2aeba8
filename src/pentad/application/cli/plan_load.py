"""`pentad plan --load`: which machine runs which model under a load, and what breaks first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import typer

from pentad.application.cli.output import duration, plain, print_json, print_table
from pentad.application.cli.planning import Ask, Described, form_for
from pentad.errors import InvalidRequest
from pentad.execution.device import Cluster
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import ModelSpec
from pentad.resource.placement.base import PlacementProblem, Workload
from pentad.resource.placement.plan import Plan
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    Policies,
    SimulationOptions,
    TraceItem,
    simulate_fleet,
)
from pentad.resource.simulator.capacity import Capacity, capacity, dealt, divide
from pentad.types import Objective, RunContext

_OFFLOAD = "fastest"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """Plans of all models on one cluster, and what the load makes of them."""

    plans: tuple[Plan, ...]
    capacity: Capacity
    share: float

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        found = self.capacity
        return {
            "plans": [plan.to_dict() for plan in self.plans],
            "load_per_s": found.own_per_s,
            "share": self.share,
            "highest_per_s": found.highest_per_s,
            "at_highest": None if found.at_highest is None else found.at_highest.to_dict(),
            "breaks": None if found.breaks is None else found.breaks.to_dict(),
        }


def plan_load(
    ask: Ask, models: Sequence[Described], cluster: Cluster, load: Sequence[TraceItem], *, share: float
) -> LoadPlan:
    """Divides the machines between the models, and simulates the load on what comes of it.

    Raises InvalidRequest without an objective, Infeasible where there is no plan.
    """
    if ask.objective == Objective():
        raise InvalidRequest(
            "--load finds the highest load that keeps an objective, but none is set",
            hint="set --ttft-s, --inter-token-s or --deadline-s",
            param="load",
        )
    specs = [model.spec for model in models]
    items = dealt(load, [spec.name for spec in specs])
    form = form_for(models[0], cluster.devices[0], ask.weight_bits, ask.kv_bits)

    def problem(spec: ModelSpec, machines: Cluster, workload: Workload) -> PlacementProblem:
        return PlacementProblem(spec=spec, cluster=machines, workload=workload, form=form)

    plans = divide(specs, cluster, items, ask.planner, problem)
    limits = EngineLimits(max_waiting=len(items))
    options = SimulationOptions(limits=limits, form=form, too_long="clip")
    fleets = [
        Fleet(spec=spec, cluster=cluster, plan=plan, context=RunContext(objective=ask.objective))
        for spec, plan in zip(specs, plans, strict=True)
    ]
    policies = Policies.of(offload=_OFFLOAD)

    def replay(items: Sequence[TraceItem]) -> FleetReport:
        return simulate_fleet(items, fleets, policies, options=options)

    found = capacity(items, replay, ask.objective, share=share, limits=limits)
    return LoadPlan(plans=tuple(plans), capacity=found, share=share)


def show(found: LoadPlan, *, as_json: bool) -> None:
    """Who runs what, the highest load, and what breaks first."""
    if as_json:
        print_json(found.to_dict())
        return
    at = found.capacity.at_highest
    engines = {} if at is None else {engine.name: engine for engine in at.engines}
    rows: list[tuple[object, ...]] = []
    for plan in found.plans:
        for replica in plan.replicas:
            name = "+".join(replica.devices)
            layers = " ".join(f"{stage.first_layer}-{stage.end_layer - 1}" for stage in replica.stages)
            own = engines.get(name)
            given = sum(engine.given for engine in engines.values())
            seen = (
                ("-", "-", "-")
                if own is None
                else (
                    f"{own.given / given:.0%}",
                    f"{own.report.utilisation:.0%}",
                    duration(own.report.ttft.p95),
                )
            )
            rows.append((plain(name), plan.model, layers, *seen))
    columns = ("machines", "model", "layers", "requests", "in steps", "p95 first token")
    print_table(columns, rows, empty="no machines")
    typer.echo("\n" + "\n".join(_lines(found)))


def _lines(found: LoadPlan) -> list[str]:
    result, share = found.capacity, f"{found.share:.0%}"
    lines = [f"the load      {result.own_per_s:.3g} requests/s"]
    if result.highest_per_s is None:
        lines.append(f"highest load  none: at no rate tried do {share} of the requests meet the objective")
    else:
        times = result.highest_per_s / result.own_per_s
        lines.append(
            f"highest load  {result.highest_per_s:.3g} requests/s at which {share} meet the objective, "
            f"{times:.2g} times the load's"
        )
    if result.breaks is None:
        lines.append("breaks first  nothing, at any rate tried")
        return lines
    broken = result.breaks
    of = f" on {plain(broken.engine)!r}" if broken.engine else ""
    used = {
        "nothing": "though nothing is used up: its own speed is too low",
        "prompts": "whose time is used up, most of it by prompts",
        "answers": "whose time is used up, most of it by answers",
    }.get(broken.limit, f"whose {broken.limit} are used up")
    lines.append(
        f"breaks first  {broken.missed}{of}, {used}: {broken.share:.0%} of the requests at "
        f"{broken.rate_per_s:.3g}/s"
    )
    return lines
