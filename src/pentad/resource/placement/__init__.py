"""Placement: which device runs which layers, and what comes of it.

`plan` is the one call that the CLI and the layers above need:

    from pentad.resource.placement import Workload, plan
    plan("single", spec, Cluster(devices=(profile,)), Workload(prompt_tokens=800, concurrency=4))
"""

from __future__ import annotations

from pentad.choice import Choice, build
from pentad.execution.device import Cluster
from pentad.execution.spec import ModelSpec
from pentad.resource.cost import ModelForm
from pentad.resource.placement.base import PlacementPlanner, PlacementProblem, Workload
from pentad.resource.placement.plan import Handoff, Plan, Replica, Stage
from pentad.types import Objective

__all__ = [
    "Handoff",
    "ModelForm",
    "PlacementPlanner",
    "PlacementProblem",
    "Plan",
    "Replica",
    "Stage",
    "Workload",
    "plan",
]


def plan(
    strategy: str | PlacementPlanner,
    spec: ModelSpec,
    cluster: Cluster,
    workload: Workload | None = None,
    objective: Objective | None = None,
    *,
    form: ModelForm | None = None,
) -> Plan:
    """Where to run a model, with predicted memory, latencies and throughput.

    Args:
        strategy: a choice as text, as `Choice.of` reads it (`single`, `uniform`), or a planner.
        spec: the model.
        cluster: devices with their profiles, and the links between them.
        workload: prompt and answer lengths and how many requests are in flight.
        objective: latencies that must be met; None asks for none.
        form: bits per weight and per KV element; None means 16 and 16.

    Raises:
        Infeasible: no plan; the message names the limit that binds and what would lift it.
        UnknownName: no such strategy.
    """
    planner: PlacementPlanner = (
        build("placement", Choice.of(strategy)) if isinstance(strategy, str) else strategy
    )
    return planner.plan(
        PlacementProblem(
            spec=spec,
            cluster=cluster,
            workload=workload or Workload(),
            objective=objective or Objective(),
            form=form or ModelForm(),
        )
    )
