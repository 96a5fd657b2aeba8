"""The real engine under every scheduler, with shared prefixes, priorities and too few blocks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pentad.execution.device import DeviceProfile, MemoryTier
from pentad.execution.engine import Engine
from pentad.execution.scheduling import BatchScheduler, EngineLimits
from pentad.execution.spec import Rope
from pentad.execution.uniform import uniform_spec
from pentad.resource.cost import StepCost
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.simulator import RequestRecord, SimulatedRunner, TraceItem, VirtualClock
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.events import enter
from pentad.resource.simulator.world import World

SPEC = uniform_spec(
    name="toy",
    family="llama",
    vocab_size=97,
    layers=1,
    width=8,
    heads=2,
    kv_heads=1,
    head_dim=4,
    ffn_width=8,
    context_length=128,
    positions=Rope(dim=4),
)
DEVICE = DeviceProfile(
    name="toy",
    kind="cpu",
    source="assumed",
    memory=(MemoryTier(name="main", capacity_bytes=2**20, read_bytes_per_s=1e5),),
    flops_per_s={"bf16": 1e6},
    extra={"step_overhead_s": 0.01},
)
BLOCK = 4

items = st.builds(
    dict,
    arrival_s=st.floats(0, 1),
    prompt_tokens=st.integers(1, 60),
    output_tokens=st.integers(1, 20),
    priority=st.integers(0, 2),
    segments=st.lists(st.tuples(st.integers(0, 1), st.just(8)), max_size=4).map(tuple),
    tenant=st.sampled_from(["a", "b"]),
    follows=st.booleans(),
    pause_s=st.floats(0, 0.2),
)


def build(fields: list[dict[str, object]]) -> list[TraceItem]:
    """Items where some wait for the one before them."""
    trace = []
    for i, values in enumerate(fields):
        rest = {key: value for key, value in values.items() if key != "follows"}
        after = f"r{i - 1}" if i and values["follows"] else None
        trace.append(TraceItem(id=f"r{i}", after=after, **rest))  # type: ignore[arg-type]
    return trace


def replay(trace: list[TraceItem], scheduler: BatchScheduler, blocks: int) -> dict[str, RequestRecord]:
    clock = VirtualClock()
    runner = SimulatedRunner(StepCost(profile=DEVICE, spec=SPEC), clock, num_blocks=blocks, block_size=BLOCK)
    limits = EngineLimits(max_batch_tokens=24, max_sequences=4, max_waiting=100)
    engine = Engine(runner, scheduler, limits=limits, clock=clock, check_invariants=True)
    world = World([SimulatedEngine(name="box", engine=engine, runner=runner)], clock)
    enter(world, trace)
    world.run()
    world.check_integrity()
    assert engine.stats()["kv_blocks_held"] == 0
    return world.records


@given(fields=st.lists(items, min_size=1, max_size=10), spare=st.integers(0, 10), aging=st.floats(0.05, 5))
@settings(max_examples=60, deadline=None)
def test_every_scheduler_gives_the_same_tokens_and_the_books_always_balance(
    fields: list[dict[str, object]], spare: int, aging: float
) -> None:
    trace = build(fields)
    blocks = max(-(-(item.prompt_tokens + item.output_tokens) // BLOCK) for item in trace) + spare
    outcomes = [
        replay(trace, scheduler, blocks)
        for scheduler in (
            Fcfs(),
            Fcfs(prefill_first=False),
            Sarathi(aging_s=aging),
            Sarathi(token_budget=5, headroom_blocks=0),
        )
    ]
    for item in trace:
        first, *others = (records[item.id] for records in outcomes)
        assert first.refusal is None
        assert len(first.tokens) == item.output_tokens
        assert all(other.tokens == first.tokens for other in others)
        for record in (first, *others):
            times = [record.arrived_s, *record.token_times_s, record.finished_s]
            assert times == sorted(times)  # type: ignore[type-var]
