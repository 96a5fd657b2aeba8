"""The one engine of an elastic plan, as a world sees it."""

from __future__ import annotations

from functools import partial

from pentad.errors import Infeasible
from pentad.execution.device import Cluster
from pentad.execution.spec import ModelSpec
from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.pipeline import PipelineCost
from pentad.resource.placement.plan import Plan
from pentad.resource.placement.sequence_parallel import sequence_cost
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.cold_start import cold_start_s
from pentad.resource.simulator.elastic import ElasticEngine
from pentad.resource.simulator.elastic_launch import ElasticLaunches, FixedLaunches, Launches
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.replay import SimulationOptions
from pentad.resource.simulator.runner import SimulatedRunner


def elastic_engine(
    spec: ModelSpec, cluster: Cluster, plan: Plan, options: SimulationOptions, clock: VirtualClock
) -> SimulatedEngine:
    """All instances of the plan as one engine; options of KV policies and caches are not for it.

    Raises Infeasible where an instance has no room for keys and values.
    """
    assert plan.elastic is not None, f"the plan of {plan.strategy!r} is not elastic"
    problem = PlacementProblem(spec=spec, cluster=cluster, form=options.form)
    instances = [replica.devices for replica in plan.replicas]
    cost = sequence_cost(problem, instances)
    blocks = options.kv_blocks or len(instances) * _blocks(spec, plan, options)
    # Policies see the pace of one instance.
    pace = PipelineCost(spec=spec, form=options.form, stages=(cost.instance,), links=())
    runner = SimulatedRunner(pace, clock, num_blocks=blocks, block_size=options.block_size)
    degree = plan.elastic.degree
    launches: Launches
    if degree is None:
        launches = ElasticLaunches(cost=cost, count=len(instances))
    else:
        places = range(len(instances))
        groups = tuple(tuple(places[i : i + degree]) for i in range(0, len(instances), degree))
        launches = FixedLaunches(groups=groups, batch_tokens=options.limits.max_batch_tokens)
    anew = partial(
        ElasticEngine,
        runner,
        cost,
        launches,
        count=len(instances),
        scale_down=plan.elastic.scale_down if degree is None else "proactive",
        limits=options.limits,
        clock=clock,
    )
    devices = tuple(name for names in instances for name in names)
    profiles = [cluster.device(name) for name in devices]
    return SimulatedEngine(
        name="+".join(devices),
        engine=anew(),
        anew=anew,
        runner=runner,
        devices=devices,
        memory_bytes=sum(stage.weight_bytes for stage in plan.stages) + blocks * runner.block_bytes,
        cold_start_s=options.cold_start_s
        if options.cold_start_s is not None
        else max(cold_start_s(cluster, replica) for replica in plan.replicas),
        price_per_s=sum(profile.price_per_hour or 0.0 for profile in profiles) / 3600,
        power_w=sum(profile.power_w or 0.0 for profile in profiles),
    )


def _blocks(spec: ModelSpec, plan: Plan, options: SimulationOptions) -> int:
    """KV blocks of an instance: what its fullest device holds beside weights and activations."""
    found = options.limits.max_sequences * -(-spec.context_length // options.block_size)
    for stage in plan.stages:
        free = stage.usable_bytes - stage.weight_bytes - stage.activation_bytes
        each = stage.share * options.form.kv_bytes(spec, options.block_size)
        found = min(found, int(free // each))
        if found < 1:
            raise Infeasible(
                f"device {stage.device!r} has no room for KV blocks beside its part of model {spec.name!r}",
                hint="set --weight-bits 4, or raise the option tensor",
                param="memory",
            )
    return found
