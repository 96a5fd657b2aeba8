"""`simulate`: from a trace, a model and a device to a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from pentad.choice import Choice, build
from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.checks import max_sequence_tokens
from pentad.execution.device import DeviceProfile
from pentad.execution.engine import Engine
from pentad.execution.kv.eviction import KVEviction
from pentad.execution.kv.policy import KVPolicy
from pentad.execution.scheduling import BatchScheduler, EngineLimits
from pentad.execution.spec import ModelSpec
from pentad.ranges import in_range
from pentad.resource.cost import ModelForm, StepCost
from pentad.resource.matrices import usable_bytes
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.events import enter
from pentad.resource.simulator.lone_engine import LoneEngine
from pentad.resource.simulator.report import RequestRecord, SimulationReport
from pentad.resource.simulator.runner import SimulatedRunner
from pentad.resource.simulator.store import SimulatedStore
from pentad.resource.simulator.trace import TraceItem, stand_alone
from pentad.resource.simulator.world import World
from pentad.types import Objective

GIB = 1024**3
MEMORY_FRACTION = 0.9
"""Share of the main memory that weights and KV blocks may take when their number is not given."""

STORE_BYTES_PER_S = 5e8
"""Of copies to a mapped file and back: BLAKE2b of a block and a copy of it, on one slow core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationOptions:
    """The engine that is simulated."""

    limits: EngineLimits = field(default_factory=EngineLimits)
    kv_blocks: int | None = None
    """None fills what the weights leave of the device's main memory."""
    block_size: int = 16
    prefix_cache: bool = True
    kv_policy: KVPolicy | None = None
    """What stays in the KV cache; None keeps all. One that needs attention scores is refused."""
    kv_eviction: KVEviction | None = None
    """Which texts stay cached over the pauses of their runs; None: those announced."""
    kv_store_blocks: int = 0
    """Blocks that a store beside the pool holds of runs that go on; 0: there is none."""
    kv_store_bytes_per_s: float = STORE_BYTES_PER_S
    """Rate at which blocks are copied to the store and back, their checksums included."""
    too_long: Literal["refuse", "clip"] = "refuse"
    """What becomes of a request that exceeds the context or the KV cache. Clipping cuts the prompt,
    then the output; the report counts both."""
    form: ModelForm = field(default_factory=ModelForm)
    cold_start_s: float | None = None
    """Of an engine of a fleet; None: its weights at the rate of its device's disk, 1 GB/s without one."""
    seed: int = 0
    """Of the prompts' tokens."""
    each_step: bool = False
    """Whether steps are taken one by one also where nothing happens between them: the same, but slower."""

    def __post_init__(self) -> None:
        in_range("kv_blocks", self.kv_blocks, least=1)
        in_range("block_size", self.block_size, least=1)
        in_range("cold_start_s", self.cold_start_s, least=0)
        in_range("kv_store_blocks", self.kv_store_blocks, least=0)
        in_range("kv_store_bytes_per_s", self.kv_store_bytes_per_s, above=0)
        in_range("seed", self.seed, least=0)


def simulate(
    trace: Sequence[TraceItem],
    spec: ModelSpec,
    profile: DeviceProfile,
    scheduler: str | BatchScheduler = "sarathi",
    *,
    options: SimulationOptions | None = None,
    objective: Objective | None = None,
    cost: StepCost | None = None,
    tell: Callable[[int], None] | None = None,
) -> SimulationReport:
    """What would happen if this load met this model on this device.

    Deterministic: the same arguments give the same report.

    Args:
        trace: requests, see `read_trace`, `poisson`, `agent_run`.
        spec: the model.
        profile: the device.
        scheduler: a choice as text, as `Choice.of` reads it, or a scheduler.
        options: the engine's limits, blocks and precision.
        objective: latencies that goodput and attainment are judged by.
        cost: step times, where they are calibrated; None predicts them from the profile.
        tell: hears now and then how many requests have ended.

    Raises:
        InvalidRequest: the trace is empty or waits for an item that it does not hold.
        Infeasible: the model does not fit the device.
    """
    options = options or SimulationOptions()
    check_trace(trace)
    policy: BatchScheduler = (
        build("scheduler", Choice.of(scheduler)) if isinstance(scheduler, str) else scheduler
    )
    cost = cost or StepCost(profile=profile, spec=spec, form=options.form)
    clock = VirtualClock()
    blocks = _default_blocks(cost, options) if options.kv_blocks is None else options.kv_blocks
    runner = SimulatedRunner(cost, clock, num_blocks=blocks, block_size=options.block_size)
    if _counts_suffice(trace, spec, options):
        replayed = _lone(trace, runner, policy, options, profile.name, tell)
        return _report(replayed, trace, runner, policy, profile, objective)
    engine = Engine(
        runner,
        policy,
        limits=options.limits,
        clock=clock,
        prefix_cache=options.prefix_cache,
        kv_policy=options.kv_policy,
        kv_eviction=options.kv_eviction,
        kv_store=store_of(options, runner, clock),
    )
    items: list[TraceItem] = list(trace)
    clipped: dict[str, int] = {}
    if options.too_long == "clip":
        items, clipped = clip(items, engine.max_sequence_tokens)
    simulated = SimulatedEngine(name=profile.name, engine=engine, runner=runner)
    world = World([simulated], clock, clipped=clipped, seed=options.seed, each_step=options.each_step)
    enter(world, items)
    world.run(tell)
    world.check_integrity()
    return _report(world.records, trace, runner, policy, profile, objective)


def _counts_suffice(trace: Sequence[TraceItem], spec: ModelSpec, options: SimulationOptions) -> bool:
    """Whether a load can be replayed without texts and named blocks, to the same end."""
    if options.each_step or options.kv_store_blocks or spec.encoder is not None or spec.state_bytes():
        return False
    keeps_all = options.kv_policy is None or options.kv_policy.start(spec) is None
    return keeps_all and stand_alone(trace)


def _lone(
    trace: Sequence[TraceItem],
    runner: SimulatedRunner,
    policy: BatchScheduler,
    options: SimulationOptions,
    name: str,
    tell: Callable[[int], None] | None,
) -> Mapping[str, RequestRecord]:
    """The records of requests that have nothing in common."""
    items: list[TraceItem] = list(trace)
    clipped: dict[str, int] = {}
    if options.too_long == "clip":
        items, clipped = clip(items, max_sequence_tokens(runner))
    engine = LoneEngine(
        runner,
        policy,
        limits=options.limits,
        name=name,
        prefix_cache=options.prefix_cache,
        seed=options.seed,
        clipped=clipped,
    )
    engine.run(items, tell)
    return engine.records


def _report(
    records: Mapping[str, RequestRecord],
    trace: Sequence[TraceItem],
    runner: SimulatedRunner,
    policy: BatchScheduler,
    profile: DeviceProfile,
    objective: Objective | None,
) -> SimulationReport:
    return SimulationReport(
        scheduler=policy.name,
        device=profile.name,
        model=runner.spec.name,
        objective=objective or Objective(),
        records=tuple(records[item.id] for item in trace),
        busy_s=runner.busy_s,
        steps=runner.steps,
        computed_tokens=runner.tokens,
    )


def store_of(
    options: SimulationOptions, runner: SimulatedRunner, clock: VirtualClock
) -> SimulatedStore | None:
    """The store beside an engine's pool, where one is asked for."""
    if not options.kv_store_blocks:
        return None
    return SimulatedStore(
        clock,
        block_bytes=runner.block_bytes,
        most_blocks=options.kv_store_blocks,
        bytes_per_s=options.kv_store_bytes_per_s,
    )


def check_trace(trace: Sequence[TraceItem]) -> None:
    """Raises InvalidRequest for a trace that is empty, or whose items are not told apart or wait in vain."""
    if not trace:
        raise InvalidRequest("the trace has no requests")
    ids = {item.id for item in trace}
    if len(ids) < len(trace):
        raise InvalidRequest("two items of the trace have the same id", hint="give each its own id")
    waits = {item.id: item.waits_for for item in trace}
    for name, others in waits.items():
        for other in others:
            if other not in ids:
                raise InvalidRequest(f"trace item {name!r} waits for {other!r}, which is not in the trace")
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1][:-1]
        first = circle.index(min(circle))
        names = " -> ".join((*circle[first:], *circle[: first + 1]))
        raise InvalidRequest(f"trace items wait for each other in a circle: {names}") from None


def _default_blocks(cost: StepCost, options: SimulationOptions) -> int:
    """KV blocks for what the weights leave; at least one, or the model does not fit."""
    spec, form = cost.spec, cost.form
    memory = usable_bytes(cost.profile, MEMORY_FRACTION)

    def left(form: ModelForm) -> int:
        free = memory - form.weight_bytes(spec.parameters)
        return int(free // form.kv_bytes(spec, options.block_size))

    blocks = left(form)
    if blocks < 1:
        milder = [b for b in (8, 4) if b < form.weight_bits and left(form.with_weight_bits(b)) >= 1]
        raise Infeasible(
            f"device {cost.profile.name!r} has {memory / GIB:.1f} GiB free, model {spec.name!r} in "
            f"{form.weight_bits:g} bits takes {form.weight_bytes(spec.parameters) / GIB:.1f} GiB for weights "
            "and leaves none for KV",
            hint=f"set --weight-bits {milder[0]}" if milder else "choose a larger device or a smaller model",
            param="memory",
        )
    # More blocks than all sequences at full length can use would only cost simulation memory.
    most = options.limits.max_sequences * -(-spec.context_length // options.block_size)
    return min(blocks, most)


def clip(items: list[TraceItem], most: int) -> tuple[list[TraceItem], dict[str, int]]:
    """The items cut to `most` tokens each, and how much was cut off which."""
    kept: list[TraceItem] = []
    clipped: dict[str, int] = {}
    for item in items:
        excess = item.prompt_tokens + item.output_tokens - most
        if excess > 0:
            clipped[item.id] = excess
            output = min(item.output_tokens, most - 1)
            item = replace(item, prompt_tokens=max(1, most - output), output_tokens=output)
        kept.append(item)
    return kept, clipped
