"""From what `pentad simulate` was told to a function that replays a load."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from pentad.application.cli.planning import Described, form_for
from pentad.choice import Choice, build
from pentad.execution.device import Cluster, DeviceProfile
from pentad.resource.placement.base import PlacementProblem, Workload
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    Outage,
    Policies,
    SimulationOptions,
    SimulationReport,
    TraceItem,
    simulate,
    simulate_fleet,
)
from pentad.types import Objective, RunContext

Tell = Callable[[int], None]
Replay = Callable[[Sequence[TraceItem], Tell | None], SimulationReport | FleetReport]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is simulated, wherever it runs."""

    model: Described
    objective: Objective
    options: SimulationOptions
    weight_bits: float | None
    kv_bits: float | None

    def under(self, policies: Mapping[str, str]) -> Ask:
        """The same with the policies inside an engine that are named here. Raises UnknownName."""
        name = policies.get("kv_eviction")
        if name is None:
            return self
        options = dataclasses.replace(self.options, kv_eviction=build("kv_eviction", Choice.of(name)))
        return dataclasses.replace(self, options=options)

    def options_on(self, device: DeviceProfile) -> SimulationOptions:
        """The options with the model in the form that it has on such a device."""
        form = form_for(self.model, device, self.weight_bits, self.kv_bits)
        return dataclasses.replace(self.options, form=form)


def device_replay(ask: Ask, device: DeviceProfile, scheduler: str) -> Replay:
    """Replays on one device."""
    options = ask.options_on(device)

    def replay(items: Sequence[TraceItem], tell: Tell | None) -> SimulationReport:
        return simulate(
            items, ask.model.spec, device, scheduler, options=options, objective=ask.objective, tell=tell
        )

    return replay


def fleet_replay(
    ask: Ask,
    cluster: Cluster,
    load: Sequence[TraceItem],
    chosen: Mapping[str, str],
    *,
    origin: str | None,
    outages: Sequence[Outage] = (),
) -> Replay:
    """Replays on the engines of a plan that is made for the mean request of a load.

    Args:
        chosen: names of `strategy` (the placement), `scheduler`, `offload` and `scaler`.

    Raises Infeasible where there is no plan, UnknownName for no such placement or origin.
    """
    options = ask.options_on(cluster.devices[0])
    policies = Policies.of(scheduler=chosen["scheduler"], offload=chosen["offload"], scaler=chosen["scaler"])
    workload = Workload(
        prompt_tokens=round(sum(item.prompt_tokens for item in load) / len(load)),
        new_tokens=round(sum(item.output_tokens for item in load) / len(load)),
        # Memory beside the weights becomes KV blocks, so a plan need hold no more than one each.
        concurrency=len(cluster.devices),
        max_batch_tokens=options.limits.max_batch_tokens,
        block_size=options.block_size,
    )
    problem = PlacementProblem(spec=ask.model.spec, cluster=cluster, workload=workload, form=options.form)
    fleet = Fleet(
        spec=ask.model.spec,
        cluster=cluster,
        plan=build("placement", Choice.of(chosen["strategy"])).plan(problem),
        origin=origin,
        context=RunContext(objective=ask.objective),
        quality=ask.model.quality,
    )

    def replay(items: Sequence[TraceItem], tell: Tell | None) -> FleetReport:
        return simulate_fleet(items, fleet, policies, options=options, outages=outages, tell=tell)

    return replay
