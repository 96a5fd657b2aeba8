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
from pentad.resource.placement.phase_balance import PhaseBalance
from pentad.resource.placement.plan import Plan, Replica
from pentad.resource.placement.predict import pipeline_cost
from pentad.resource.scaling.base import FleetScaler, Host
from pentad.resource.scaling.fixed import FixedReplicas
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.cold_start import cold_start_s
from pentad.resource.simulator.control import FleetControl
from pentad.resource.simulator.elastic_fleet import elastic_engine
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.events import enter
from pentad.resource.simulator.fleet_report import FleetReport, engine_report, host_cost
from pentad.resource.simulator.handovers import ReceivedBlocks, Target
from pentad.resource.simulator.links import LinkChange
from pentad.resource.simulator.outages import Outage, enter_outage
from pentad.resource.simulator.placing import Placing
from pentad.resource.simulator.rebalancing import Rebalance
from pentad.resource.simulator.replay import SimulationOptions, check_trace, clip, store_of
from pentad.resource.simulator.report import SimulationReport
from pentad.resource.simulator.runner import SimulatedRunner
from pentad.resource.simulator.scaling_events import begin
from pentad.resource.simulator.trace import TraceItem
from pentad.resource.simulator.world import World
from pentad.types import RunContext


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
    quality: float | None = None
    """Share of requests that the model answers well, 0 to 1; None: nobody says."""

    def __post_init__(self) -> None:
        names = [device.name for device in self.cluster.devices]
        if self.origin is not None and self.origin not in names:
            raise UnknownName(
                f"the cluster has no device {self.origin!r}", hint=near(self.origin, names), param="origin"
            )


def simulate_fleet(
    trace: Sequence[TraceItem],
    fleet: Fleet | Sequence[Fleet],
    policies: Policies | None = None,
    *,
    options: SimulationOptions | None = None,
    changes: Sequence[LinkChange] = (),
    outages: Sequence[Outage] = (),
    tell: Callable[[int], None] | None = None,
) -> FleetReport:
    """What would happen if this load met these engines.

    Every replica of the plan is the real engine with the real scheduler and block pool; requests are
    given to them by the offload policy. All run on one virtual clock. Deterministic.

    Args:
        trace: requests, see `read_trace`, `poisson`, `agent_run`.
        fleet: model, cluster and plan; or those of several models over one cluster, of which each item of the
            trace names its own. Origin and context are then the first one's. A device computes one model at
            a time: which, the scaler decides.
        policies: who decides; None takes the baselines.
        options: limits and blocks of each engine; `form` is that of the plan's model.
        changes: what becomes of links meanwhile.
        outages: devices that fail or are taken back meanwhile.
        tell: hears now and then how many requests have ended.

    Raises:
        InvalidRequest: the trace is empty or waits for an item that it does not hold.
        UnknownName: an item names a model that no fleet has, or an outage a device that no engine needs.
        Incompatible: the fleets are not of different models over one cluster.
        Infeasible: a replica's devices have no room for KV blocks, or lack a link.
    """
    policies = policies or Policies.of()
    options = options or SimulationOptions()
    check_trace(trace)
    fleets = (fleet,) if isinstance(fleet, Fleet) else tuple(fleet)
    fleet = fleets[0]
    _check(fleets, policies, trace)
    clock = VirtualClock()
    # No more blocks than the whole load could fill: others would only cost memory of the simulation.
    usable = sum(-(-(item.prompt_tokens + item.output_tokens) // options.block_size) for item in trace)
    names: Counter[str] = Counter()
    groups = [
        _engines(
            each, fleets if policies.scaler.colocates else (each,), policies, options, clock, usable, names
        )
        for each in fleets
    ]
    engines = [engine for group in groups for engine in group]
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
    world = World(
        engines, clock, placing=placing, clipped=clipped, seed=options.seed, each_step=options.each_step
    )
    hosts = {
        host.name: Host(price_per_s=host.price_per_hour / 3600, start_s=host.start_s)
        for host in fleet.cluster.hosts
    }
    control = FleetControl(scaler=policies.scaler, seed=options.seed, hosts=hosts)
    for each, group in zip(fleets, groups, strict=True):
        world.targets |= _targets(each.plan, group)
        if each.plan.rebalance_s is not None:
            balance = PhaseBalance(interval_s=each.plan.rebalance_s)
            look = Rebalance(balance, each.spec.name, control.decisions)
            world.schedule(balance.interval_s, look)
    enter(world, items)
    for change in changes:
        world.schedule(change.at_s, change)
    begin(world, control)
    devices = {device for engine in engines for device in engine.devices}
    if outages and any(engine.role != "both" for engine in engines):
        raise Incompatible(
            "outages of plans with prefill and decode replicas are not simulated yet",
            hint="choose a --strategy whose replicas compute both phases, as data-parallel",
            param="outage",
        )
    for outage in outages:
        if outage.device not in devices:
            raise UnknownName(
                f"no engine needs a device {outage.device!r}",
                hint=near(outage.device, sorted(devices)),
                param="outage",
            )
        enter_outage(world, outage, control)
    world.run(tell)
    world.check_integrity()
    total = SimulationReport(
        scheduler=policies.scheduler.name,
        device=f"{len(engines)} engines",
        model="+".join(each.spec.name for each in fleets),
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
        wasted_starts=control.wasted,
        engines=tuple(engine_report(engine, total) for engine in engines),
        host_cost=host_cost(hosts, engines, total),
        sent_bytes=placing.sent_bytes,
        moved_bytes=placing.moved_bytes + sum(engine.runner.moved_bytes for engine in engines),
    )


def _check(fleets: Sequence[Fleet], policies: Policies, trace: Sequence[TraceItem]) -> None:
    """Raises unless the fleets go together, and with scaler and trace."""
    models = [fleet.spec.name for fleet in fleets]
    if len(set(models)) < len(models) or any(fleet.cluster != fleets[0].cluster for fleet in fleets):
        raise Incompatible(
            "fleets of one world must be of different models over one cluster",
            hint="give each model one fleet, all with the same cluster",
        )
    for fleet in fleets:
        if policies.scaler.least_replicas > len(fleet.plan.replicas):
            raise Infeasible(
                f"scaler {policies.scaler.name!r} keeps {policies.scaler.least_replicas} replicas up, "
                f"the plan has {len(fleet.plan.replicas)}",
                hint="let it keep fewer, or choose a --strategy with more replicas",
                param="scaler",
            )
        if fleet.plan.elastic is not None and policies.scheduler != Sarathi():
            raise Incompatible(
                f"scheduler {policies.scheduler.name!r} is not for a plan whose engine orders its steps",
                hint="leave --scheduler out, or choose a --strategy whose replicas work by themselves",
                param="scheduler",
            )
        if fleet.plan.handoffs and policies.scaler != FixedReplicas():
            raise Incompatible(
                f"scaler {policies.scaler.name!r} would start and stop replicas of a plan with phases",
                hint="leave --scaler out, or choose a --strategy whose replicas compute both phases",
                param="scaler",
            )
    for item in trace:
        if item.model and item.model not in models:
            raise UnknownName(f"no fleet has the model {item.model!r}", hint=near(item.model, models))


def _engines(
    fleet: Fleet,
    together: Sequence[Fleet],
    policies: Policies,
    options: SimulationOptions,
    clock: VirtualClock,
    usable_blocks: int,
    names: Counter[str],
) -> list[SimulatedEngine]:
    """The fleet's engines; all fleets `together` split the devices, `names` counts those on the same ones."""
    replicas = [replica for each in together for replica in each.plan.replicas]
    sharing = Counter(name for replica in replicas for name in replica.devices)
    weights: Counter[str] = Counter()
    for replica in replicas:
        for stage in replica.stages:
            weights[stage.device] += round(stage.weight_bytes)
    engines = []
    if fleet.plan.elastic is not None:
        return [elastic_engine(fleet.spec, fleet.cluster, fleet.plan, options, clock)]
    for replica in fleet.plan.replicas:
        devices = replica.devices
        name = "+".join(devices)
        names[name] += 1
        profiles = [fleet.cluster.device(device) for device in devices]
        problem = PlacementProblem(spec=fleet.spec, cluster=fleet.cluster, form=options.form)
        cost = pipeline_cost(problem, replica)
        blocks = options.kv_blocks or min(usable_blocks, _blocks(fleet, replica, options, sharing, weights))
        runner = SimulatedRunner(cost, clock, num_blocks=blocks, block_size=options.block_size)
        received = ReceivedBlocks(options.block_size) if _answers(fleet.plan, replica) else None
        anew = partial(
            Engine,
            runner,
            policies.scheduler,
            limits=options.limits,
            clock=clock,
            prefix_cache=options.prefix_cache,
            kv_policy=options.kv_policy,
            kv_eviction=options.kv_eviction,
            kv_store=received or store_of(options, runner, clock),
        )
        engines.append(
            SimulatedEngine(
                name=name if names[name] == 1 else f"{name}#{names[name]}",
                engine=anew(),
                anew=anew,
                runner=runner,
                devices=devices,
                role=replica.role,
                received=received,
                memory_bytes=sum(stage.weight_bytes for stage in replica.stages)
                + blocks * runner.block_bytes,
                weight=replica.weight,
                price_per_s=sum(profile.price_per_hour or 0.0 for profile in profiles) / 3600,
                cold_start_s=options.cold_start_s
                if options.cold_start_s is not None
                else cold_start_s(fleet.cluster, replica),
                power_w=sum(profile.power_w or 0.0 for profile in profiles),
                host=profiles[0].host,
                spot=any(profile.spot for profile in profiles),
                remote=any(profile.remote for profile in profiles),
                quality=fleet.quality,
            )
        )
    return engines


def _answers(plan: Plan, replica: Replica) -> bool:
    """Whether it may be handed what another replica has prefilled."""
    return replica.role == "decode" or (bool(plan.handoffs) and plan.rebalance_s is not None)


def _targets(plan: Plan, engines: Sequence[SimulatedEngine]) -> dict[str, tuple[Target, ...]]:
    """Who may answer what each of the plan's prefill engines has computed."""
    found: dict[str, tuple[Target, ...]] = {}
    if plan.rebalance_s is not None:  # whoever answers at that time may be handed to
        by_layer = any(handoff.by_layer for handoff in plan.handoffs)
        everyone = tuple(Target(engine, 1.0, by_layer) for engine in engines)
        return dict.fromkeys((engine.name for engine in engines), everyone)
    for handoff in plan.handoffs:
        target = Target(engines[handoff.target], handoff.weight, handoff.by_layer)
        source = engines[handoff.source].name
        found[source] = (*found.get(source, ()), target)
    return found


def _blocks(
    fleet: Fleet,
    replica: Replica,
    options: SimulationOptions,
    sharing: Counter[str],
    weights: Counter[str],
) -> int:
    """KV blocks that the tightest stage holds beside all weights; a device of several replicas is split."""
    most = options.limits.max_sequences * -(-fleet.spec.context_length // options.block_size)
    for stage in replica.stages:
        layers = range(stage.first_layer, stage.end_layer)
        block_bytes = options.form.kv_bytes(fleet.spec, options.block_size, layers)
        if stage.attention:
            rooms = [(part.share, part.device, part.usable_bytes) for part in stage.attention]
        else:
            rooms = [(stage.share, stage.device, stage.usable_bytes)]
        for share, device, usable in rooms:
            taken = 0 if stage.attention else stage.activation_bytes
            free = (usable - weights[device]) / sharing[device] - taken
            most = min(most, int(free // (share * block_bytes)))
        if most < 1:
            raise Infeasible(
                f"device {stage.device!r} has no room for KV blocks beside its part of model "
                f"{fleet.spec.name!r}",
                hint="set --weight-bits 4, or choose another --strategy",
                param="memory",
            )
    return most
