"""Runs whose tools pause them: the KV of a pause is kept, stored or dropped, and what that is worth.

The trace has the six kinds of augmented requests of InferCept (Abhyankar et al., ICML'24, table 1), with
about their contexts, numbers of calls and seconds of a call; the longest chain is cut to a third. Runs
arrive faster than the machine computes them when every pause costs a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from resource_samples import LLAMA_1B, measured_device

from evidence.plugin import Measure
from pentad.choice import Choice, build
from pentad.execution.scheduling import EngineLimits
from pentad.resource.cost import StepCost
from pentad.resource.simulator import SimulationOptions, SimulationReport, TraceItem, agent_run, simulate
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.store import SimulatedStore
from pentad.types import Hints

KINDS = (
    ("calculator", 9e-5, 4, 1422),
    ("questions", 0.69, 3, 1846),
    ("world", 0.09, 10, 2185),
    ("person", 28.6, 5, 753),
    ("image", 20.0, 7, 1247),
    ("speech", 17.2, 7, 1251),
)
"""Name of the tool, seconds of a call, requests of a run, tokens of its last prompt."""
COST = StepCost(profile=measured_device(), spec=LLAMA_1B)
BLOCKS = 512
"""Of the pool: about six of the texts."""
STORE = 8192


def tool_waits(seed: int, runs: int = 24) -> list[TraceItem]:
    """Runs of all kinds in turn; what is announced is the tool, and not how long it takes."""
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(5.0, runs))
    found: list[TraceItem] = []
    for number, at_s in enumerate(arrivals):
        tool, pause_s, steps, context = KINDS[number % len(KINDS)]
        added = context // (2 * steps)
        items = agent_run(
            f"r{number}",
            arrival_s=float(at_s),
            steps=steps,
            first_prompt=context - added * (steps - 1),
            added=added,
            output=8,
            pause_s=0.0,
        )
        pauses = pause_s * draw.lognormal(0.0, 0.5, steps)
        found += [
            replace(item, pause_s=float(pauses[i]) if i else 0.0, hints=Hints(next="tool", tool=tool))
            for i, item in enumerate(items)
        ]
    return found


def played(items: Sequence[TraceItem], scheduler: str, eviction: str, store: int) -> SimulationReport:
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=256, max_sequences=8, max_waiting=999),
        kv_blocks=BLOCKS,
        kv_eviction=build("kv_eviction", Choice.of(eviction)),
        kv_store_blocks=store,
    )
    return simulate(items, LLAMA_1B, measured_device(), scheduler, options=options, cost=COST)


def recomputed_tokens(report: SimulationReport) -> int:
    """Prompt tokens that were computed although their run had had them before."""
    last: dict[str, int] = {}
    for record in report.records:
        item = record.item
        last[item.run or ""] = max(last.get(item.run or "", 0), item.prompt_tokens)
    return report.missed_tokens - sum(last.values())


@pytest.mark.row("ch-agent-patterns", "effect", claims=(1, 2))
@pytest.mark.parametrize("seed", [1, 2])
def test_kept_and_stored_texts_save_recomputation_and_let_more_requests_through(
    seed: int, measured: Measure
) -> None:
    """Against FCFS that drops by recency, on one trace per seed; seed 0 was looked at before, these not."""
    items = tool_waits(seed)
    plain = played(items, "fcfs", "least-recent", 0)
    ours = played(items, "workflow", "next-use", STORE)
    assert len(plain.completed) == len(ours.completed) == len(items)
    assert [one.tokens for one in plain.records] == [one.tokens for one in ours.records]
    before, after = recomputed_tokens(plain), recomputed_tokens(ours)
    measured("recomputed prompt tokens, of those without", after / before, at_most=0.5)
    measured("throughput, over that without", plain.span_s / ours.span_s, at_least=1.2, unit="x")
    print(
        f"\nseed {seed}: recomputed {before} -> {after}, span {plain.span_s:.0f} -> {ours.span_s:.0f} s, "
        f"run mean {plain.run_completion.mean:.0f} -> {ours.run_completion.mean:.0f} s"
    )


@pytest.mark.row("ag-workflow-adapt", "effect", negative=True)
def test_allocation_by_stages_lowers_the_tail_of_runs_but_not_always_by_a_fifth(measured: Measure) -> None:
    """Who is told of runs and their tools, against FCFS that drops by recency, both without a store.

    The row asks for 20%. It was 27% and 40% on seeds 3 and 4, which were looked at, and 19% on this one,
    which was not. Beside `sarathi`, which knows no runs but fills its steps better, it was 15% and 20% on
    seeds 3 and 4; with a store, where hardly anything is recomputed, 7% and 16%.
    """
    items = tool_waits(5)
    plain = played(items, "fcfs", "least-recent", 0).run_completion
    ours = played(items, "workflow", "next-use", 0).run_completion
    print(f"\np95 of run completion {plain.p95:.0f} -> {ours.p95:.0f} s")
    measured("p95 of run completion, of that with FCFS", ours.p95 / plain.p95, at_most=1.0)


@pytest.mark.row("ag-workflow-adapt", "mechanism")
def test_a_run_that_calls_a_tool_keeps_its_text_and_one_that_responds_gives_it_up() -> None:
    """Two texts are cached when a third needs room: the older one gives way, unless its run is at a tool."""
    found = {}
    for stage in ("tool", "end"):
        first, second = agent_run(
            "a", arrival_s=0.0, steps=2, first_prompt=320, added=16, output=2, pause_s=9.0
        )
        newer = TraceItem(id="b", arrival_s=2.5, prompt_tokens=160, output_tokens=2)
        third = TraceItem(id="c", arrival_s=5.0, prompt_tokens=400, output_tokens=2)
        items = [replace(first, hints=Hints(next=stage)), replace(second, hints=Hints(next="end"))]
        items += [newer, third]
        options = SimulationOptions(kv_blocks=48, kv_eviction=build("kv_eviction", Choice.of("next-use")))
        report = simulate(items, LLAMA_1B, measured_device(), "workflow", options=options, cost=COST)
        found[stage] = report.records[1].cached_tokens
    assert found["tool"] == 320
    assert found["end"] < 320


@pytest.mark.row("ch-agent-patterns", "mechanism")
def test_what_the_pool_gave_up_over_a_pause_is_copied_from_the_store_at_the_time_that_takes() -> None:
    """Two texts that do not fit together: the first one's second request finds its blocks in the store."""
    first = agent_run("a", arrival_s=0.0, steps=2, first_prompt=480, added=16, output=2, pause_s=60.0)
    other = TraceItem(id="b", arrival_s=20.0, prompt_tokens=496, output_tokens=2)
    items = [replace(item, hints=Hints(next="tool")) for item in first] + [other]
    options = SimulationOptions(kv_blocks=40, kv_eviction=build("kv_eviction", Choice.of("least-recent")))
    rates = (1e9, 1e7)
    dropped, *stored = (
        simulate(items, LLAMA_1B, measured_device(), "workflow", options=one, cost=COST)
        for one in (options, *(replace(options, kv_store_blocks=99, kv_store_bytes_per_s=at) for at in rates))
    )
    assert dropped.records[1].cached_tokens < 480
    assert [report.records[1].cached_tokens for report in stored] == [480, 480]
    assert [report.records[1].tokens for report in stored] == [dropped.records[1].tokens] * 2
    copied = 480 // 16 - dropped.records[1].cached_tokens // 16
    longer_s = stored[1].records[1].ttft_s - stored[0].records[1].ttft_s
    block_bytes = LLAMA_1B.kv_bytes_per_token(2) * 16
    assert longer_s == pytest.approx(copied * block_bytes * (1 / rates[1] - 1 / rates[0]), rel=0.2)


def test_the_simulated_store_forgets_the_ends_of_the_oldest_texts_first() -> None:
    clock = VirtualClock()
    store = SimulatedStore(clock, block_bytes=1000, most_blocks=3, bytes_per_s=1e6)
    assert all(store.save(key, 0) for key in (b"a1", b"a2", b"b1"))
    store.touch((b"a1", b"a2"))
    store.touch((b"b1",))
    assert store.save(b"c1", 0)
    assert [key in store for key in (b"a1", b"a2", b"b1", b"c1")] == [True, False, True, True]
    assert (store.load(b"a2", 0), store.load(b"a1", 0)) == (False, True)
    assert clock() == pytest.approx(5e-3)
    store.close()
    assert b"a1" in store, "the next engine finds it"
