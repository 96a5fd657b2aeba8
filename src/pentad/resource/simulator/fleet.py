"""`simulate_fleet`: a load on the engines of a plan, over the devices and links of a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from pentad.choice import Choice, build
from pentad.errors import Incompatible, Infeasible, UnknownName
from pentad.execution.device import Cluster
from pentad.execution.engine import Engine
from pentad.execution.scheduling import BatchScheduler
from pentad.execution.spec import ModelSpec
from pentad.registry import near
from pentad.resource.offloading.base import OffloadPolicy
from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.plan import Plan, Replica
from pentad.resource.placement.predict import pipeline_cost
from pentad.resource.scaling.base import FleetScaler
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.control import FleetControl
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.events import enter
from pentad.resource.simulator.fleet_report import FleetReport, engine_report
from pentad.resource.simulator.placing import Placing
from pentad.resource.simulator.replay import SimulationOptions, check_trace, clip
from pentad.resource.simulator.report import SimulationReport
from pentad.resource.simulator.runner import SimulatedRunner
from pentad.resource.simulator.scaling_events import begin
from pentad.resource.simulator.trace import TraceItem
from pentad.resource.simulator.world import World
from pentad.types import RunContext

DISK_BYTES_PER_S = 1e9
"""Assumed of a device whose profile has no disk, for cold starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Who decides in a world: the objects that decide live."""

    scheduler: BatchScheduler
    """Of every engine; it keeps nothing between steps."""
    offload: OffloadPolicy
    """Which engine gets a request."""
    scaler: FleetScaler
    """Which engines are up."""

    @classmethod
    def of(cls, *, scheduler: str = "sarathi", offload: str = "local", scaler: str = "fixed") -> Policies:
        """The policies of these choices, as `Choice.of` reads them. Raises UnknownName, InvalidRequest."""
        return cls(
            scheduler=build("scheduler", Choice.of(scheduler)),
            offload=build("offload", Choice.of(offload)),
            scaler=build("scaler", Choice.of(scaler)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Engines of one model over a cluster, and where their requests come from."""

    spec: ModelSpec
    cluster: Cluster
    plan: Plan
    origin: str | None = None
    """The device at which requests arise; None: outside, equally near to all engines."""
    context: RunContext = field(default_factory=RunContext)
    """Objective and label that every request carries."""

    def __post_init__(self) -> None:
        names = [device.name for device in self.cluster.devices]
        if self.plan.handoffs:
            raise Incompatible(
                "a plan with prefill and decode replicas can be made, but not simulated yet",
                hint="choose a --strategy whose replicas compute both phases, as data-parallel",
                param="strategy",
            )
        if self.origin is not None and self.origin not in names:
            raise UnknownName(
                f"the cluster has no device {self.origin!r}", hint=near(self.origin, names), param="origin"
            )


def simulate_fleet(
    trace: Sequence[TraceItem],
    fleet: Fleet,
    policies: Policies | None = None,
    *,
    options: SimulationOptions | None = None,
    tell: Callable[[int], None] | None = None,
) -> FleetReport:
    """What would happen if this load met these engines.

    Every replica of the plan is the real engine with the real scheduler and block pool; requests are
    given to them by the offload policy. All run on one virtual clock. Deterministic.

    Args:
        trace: requests, see `read_trace`, `poisson`, `agent_run`.
        fleet: model, cluster and plan.
        policies: who decides; None takes the baselines.
        options: limits and blocks of each engine; `form` is that of the plan's model.
        tell: hears now and then how many requests have ended.

    Raises:
        InvalidRequest: the trace is empty or waits for an item that it does not hold.
        Infeasible: a replica's devices have no room for KV blocks, or lack a link.
    """
    policies = policies or Policies.of()
    options = options or SimulationOptions()
    check_trace(trace)
    if policies.scaler.least_replicas > len(fleet.plan.replicas):
        raise Infeasible(
            f"scaler {policies.scaler.name!r} keeps {policies.scaler.least_replicas} replicas up, "
            f"the plan has {len(fleet.plan.replicas)}",
            hint="let it keep fewer, or choose a --strategy with more replicas",
            param="scaler",
        )
    clock = VirtualClock()
    # No more blocks than the whole load could fill: others would only cost memory of the simulation.
    usable = sum(-(-(item.prompt_tokens + item.output_tokens) // options.block_size) for item in trace)
    engines = _engines(fleet, policies, options, clock, usable)
    items = list(trace)
    clipped: dict[str, int] = {}
    if options.too_long == "clip":
        items, clipped = clip(items, min(engine.engine.max_sequence_tokens for engine in engines))
    placing = Placing(
        cluster=fleet.cluster,
        policy=policies.offload.start(options.seed),
        origin=fleet.origin,
        context=fleet.context,
    )
    world = World(engines, clock, placing=placing, clipped=clipped, seed=options.seed)
    enter(world, items)
    control = FleetControl(scaler=policies.scaler, seed=options.seed)
    begin(world, control)
    world.run(tell)
    world.check_integrity()
    total = SimulationReport(
        scheduler=policies.scheduler.name,
        device=f"{len(engines)} engines",
        model=fleet.spec.name,
        objective=fleet.context.objective,
        records=tuple(world.records[item.id] for item in items),
        busy_s=sum(engine.runner.busy_s for engine in engines) / len(engines),
        steps=sum(engine.runner.steps for engine in engines),
        computed_tokens=sum(engine.runner.tokens for engine in engines),
    )
    return FleetReport(
        total=total,
        offload=policies.offload.name,
        scaler=policies.scaler.name,
        scaling=tuple(control.decisions),
        cold_starts=control.starts,
        engines=tuple(engine_report(engine, total) for engine in engines),
        sent_bytes=placing.sent_bytes,
    )


def _engines(
    fleet: Fleet, policies: Policies, options: SimulationOptions, clock: VirtualClock, usable_blocks: int
) -> list[SimulatedEngine]:
    sharing = Counter(name for replica in fleet.plan.replicas for name in replica.devices)
    names: Counter[str] = Counter()
    engines = []
    for replica in fleet.plan.replicas:
        devices = replica.devices
        name = "+".join(devices)
        names[name] += 1
        profiles = [fleet.cluster.device(device) for device in devices]
        problem = PlacementProblem(spec=fleet.spec, cluster=fleet.cluster, form=options.form)
        cost = pipeline_cost(problem, replica)
        blocks = options.kv_blocks or min(usable_blocks, _blocks(fleet, replica, options, sharing))
        runner = SimulatedRunner(cost, clock, num_blocks=blocks, block_size=options.block_size)
        anew = partial(
            Engine,
            runner,
            policies.scheduler,
            limits=options.limits,
            clock=clock,
            prefix_cache=options.prefix_cache,
            kv_policy=options.kv_policy,
        )
        engines.append(
            SimulatedEngine(
                name=name if names[name] == 1 else f"{name}#{names[name]}",
                engine=anew(),
                anew=anew,
                runner=runner,
                devices=devices,
                weight=replica.weight,
                price_per_s=sum(profile.price_per_hour or 0.0 for profile in profiles) / 3600,
                cold_start_s=_cold_start_s(fleet, replica, options),
                power_w=sum(profile.power_w or 0.0 for profile in profiles),
            )
        )
    return engines


def _cold_start_s(fleet: Fleet, replica: Replica, options: SimulationOptions) -> float:
    """Until the slowest of its devices has its weights: all read theirs from their disks at once."""
    if options.cold_start_s is not None:
        return options.cold_start_s

    def rate(device: str) -> float:
        tiers = fleet.cluster.device(device).memory
        return next((tier.read_bytes_per_s for tier in tiers if tier.name == "disk"), DISK_BYTES_PER_S)

    return max(stage.weight_bytes / rate(stage.device) for stage in replica.stages)


def _blocks(fleet: Fleet, replica: Replica, options: SimulationOptions, sharing: Counter[str]) -> int:
    """KV blocks that the tightest stage holds beside its weights; a device of several replicas is split."""
    most = options.limits.max_sequences * -(-fleet.spec.context_length // options.block_size)
    for stage in replica.stages:
        layers = range(stage.first_layer, stage.end_layer)
        free = stage.usable_bytes / sharing[stage.device] - stage.weight_bytes - stage.activation_bytes
        most = min(
            most, int(free // (stage.share * options.form.kv_bytes(fleet.spec, options.block_size, layers)))
        )
        if most < 1:
            raise Infeasible(
                f"device {stage.device!r} has no room for KV blocks beside its part of model "
                f"{fleet.spec.name!r}",
                hint="set --weight-bits 4, or choose another --strategy",
                param="memory",
            )
    return most
