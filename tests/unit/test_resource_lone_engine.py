"""Requests that have nothing in common end as under the real engine, to the last bit, with any scheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resource_samples import TINY, measured_device

from pentad.execution.scheduling import EngineLimits
from pentad.registry import known
from pentad.resource.simulator import (
    RequestRecord,
    SimulationOptions,
    SimulationReport,
    TraceItem,
    poisson,
    simulate,
)
from pentad.resource.simulator.trace import last_token_of, prompt_of
from pentad.types import Objective

BOX = measured_device()
LIMITS = EngineLimits(max_batch_tokens=128, max_sequences=6, max_waiting=1000)


def seen(records: Iterable[RequestRecord]) -> list[tuple[object, ...]]:
    """All that records tell, instants to the last bit."""
    names = [field.name for field in dataclasses.fields(RequestRecord) if field.name != "prompt_waits"]
    return [tuple(getattr(record, name) for name in names) for record in records]


def both(
    items: Iterable[TraceItem], scheduler: str, options: SimulationOptions
) -> tuple[SimulationReport, SimulationReport]:
    """The load replayed by counts alone, and by the real engine step by step."""
    load = tuple(items)
    each = dataclasses.replace(options, each_step=True)
    return (
        simulate(load, TINY, BOX, scheduler, options=options),
        simulate(load, TINY, BOX, scheduler, options=each),
    )


def assert_alike(items: Iterable[TraceItem], scheduler: str, options: SimulationOptions) -> SimulationReport:
    quick, real = both(items, scheduler, options)
    assert seen(quick.records) == seen(real.records)
    assert quick.to_dict() == real.to_dict()
    return quick


def load(seed: int, rate_per_s: float, count: int = 16) -> tuple[TraceItem, ...]:
    """Requests of several priorities, some of which wish for something."""
    wishes = (None, Objective(deadline_s=2.0), Objective(inter_token_s=0.01), Objective(ttft_s=0.3))
    made = poisson(count, rate_per_s=rate_per_s, prompt_tokens=(1, 300), output_tokens=(1, 40), seed=seed)
    return tuple(
        dataclasses.replace(item, priority=i % 3, objective=wishes[i % 4]) for i, item in enumerate(made)
    )


@pytest.mark.parametrize("scheduler", known("scheduler"))
@pytest.mark.parametrize(("rate_per_s", "blocks"), [(8.0, 400), (400.0, 45)])
def test_every_scheduler_decides_the_same(scheduler: str, rate_per_s: float, blocks: int) -> None:
    options = SimulationOptions(limits=LIMITS, kv_blocks=blocks)
    report = assert_alike(load(3, rate_per_s), scheduler, options)
    assert len(report.records) == 16


def test_sequences_that_lose_their_blocks_find_again_what_is_left_of_them() -> None:
    options = SimulationOptions(limits=LIMITS, kv_blocks=24)
    items = poisson(10, rate_per_s=500.0, prompt_tokens=(20, 60), output_tokens=(60, 120), seed=5)
    report = assert_alike(items, "sarathi", options)
    assert sum(record.preemptions for record in report.records) > 3
    without = assert_alike(items, "sarathi", dataclasses.replace(options, prefix_cache=False))
    assert without.computed_tokens > report.computed_tokens


def test_tenants_take_turns() -> None:
    shared = [dataclasses.replace(item, tenant=f"t{i % 3}") for i, item in enumerate(load(9, 60.0))]
    assert_alike(shared, "sarathi", SimulationOptions(limits=LIMITS, kv_blocks=200))


def test_a_full_queue_and_a_full_context_refuse() -> None:
    limits = dataclasses.replace(LIMITS, max_waiting=3)
    long = TraceItem(id="long", arrival_s=0.01, prompt_tokens=3000, output_tokens=5)
    items = (*load(2, 1000.0), long)
    report = assert_alike(items, "fcfs", SimulationOptions(limits=limits, kv_blocks=200))
    refused = {record.refusal for record in report.records}
    assert refused == {None, "overloaded", "context_length_exceeded"}
    clipped = assert_alike(items, "fcfs", SimulationOptions(limits=LIMITS, kv_blocks=200, too_long="clip"))
    assert clipped.to_dict()["clipped_requests"] == 1


def test_who_only_joins_a_queue_ends_no_series_and_changes_nothing() -> None:
    items = [TraceItem(id=f"{i}", arrival_s=i / 1e4, prompt_tokens=20, output_tokens=200) for i in range(20)]
    report = assert_alike(items, "sarathi", SimulationOptions(limits=LIMITS, kv_blocks=400))
    assert all(record.completed for record in report.records)


@pytest.mark.thorough
@given(
    seed=st.integers(0, 10**6),
    rate_per_s=st.floats(1, 1000),
    blocks=st.integers(30, 300),
    scheduler=st.sampled_from(known("scheduler")),
)
@settings(max_examples=40, deadline=None)
def test_any_load_ends_alike(seed: int, rate_per_s: float, blocks: int, scheduler: str) -> None:
    assert_alike(load(seed, rate_per_s, 12), scheduler, SimulationOptions(limits=LIMITS, kv_blocks=blocks))


@given(
    segments=st.lists(st.tuples(st.sampled_from([1, 5, 2**70, -3]), st.integers(0, 40)), max_size=5),
    tokens=st.integers(1, 120),
    seed=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_prompts_of_the_same_contents_begin_alike(
    segments: list[tuple[int, int]], tokens: int, seed: int
) -> None:
    shared = sum(count for _, count in segments)
    one, other = (
        TraceItem(id=name, prompt_tokens=tokens, output_tokens=1, segments=tuple(segments))
        for name in ("one", "other")
    )
    first, second = (prompt_of(item, 50_000, seed=seed) for item in (one, other))
    assert len(first) == len(second) == tokens
    assert first[:shared] == second[:shared]
    longer = TraceItem(id="x", prompt_tokens=200, output_tokens=1, segments=((7, 200),))
    cut = dataclasses.replace(longer, prompt_tokens=tokens)
    assert prompt_of(longer, 50_000)[:tokens] == prompt_of(cut, 50_000)
    alone = TraceItem(id="alone", prompt_tokens=tokens, output_tokens=1)
    assert last_token_of(alone, 50_000, seed=seed) == prompt_of(alone, 50_000, seed=seed)[-1]
