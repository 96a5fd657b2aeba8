"""Many steps taken at once leave exactly what as many single steps leave, under every scheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import pytest
from resource_samples import GPU, LLAMA_1B, TINY, measured_device

from pentad.execution.device import Cluster, Link
from pentad.execution.scheduling import EngineLimits, SchedulerInput
from pentad.registry import known
from pentad.resource.cost import Calibration, StepCost
from pentad.resource.placement import Workload, plan
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.simulator import (
    Fleet,
    Policies,
    RequestRecord,
    SimulationOptions,
    TraceItem,
    agent_run,
    poisson,
    simulate,
    simulate_fleet,
)
from pentad.resource.step_shape import StepShape
from pentad.types import Hints, Objective, RunContext

LIMITS = EngineLimits(max_batch_tokens=128, max_sequences=6, max_waiting=1000)


def load(seed: int, rate_per_s: float) -> tuple[TraceItem, ...]:
    """Requests by themselves, of which some are urgent and some are twins, and agent runs."""
    alone = tuple(
        dataclasses.replace(item, priority=i % 3, segments=((i % 5, 40),))
        for i, item in enumerate(
            poisson(30, rate_per_s=rate_per_s, prompt_tokens=(1, 260), output_tokens=(1, 90), seed=seed)
        )
    )
    runs = (
        agent_run(f"a{k}", arrival_s=k / 9, steps=3, first_prompt=50, added=40, output=21, pause_s=0.2)
        for k in range(3)
    )
    return (*alone, *(item for run in runs for item in run))


def seen(records: Iterable[RequestRecord]) -> list[tuple[object, ...]]:
    """All that a record tells, instants to the last bit."""
    return [
        (r.item.id, r.arrived_s, r.token_times_s, r.tokens, r.finished_s, r.cached_tokens, r.preemptions)
        for r in records
    ]


@pytest.mark.parametrize("scheduler", known("scheduler"))
@pytest.mark.parametrize(("rate_per_s", "blocks"), [(8.0, 400), (400.0, 60)])
def test_one_engine_does_the_same_at_once_and_step_by_step(
    scheduler: str, rate_per_s: float, blocks: int
) -> None:
    def replay(*, each_step: bool) -> list[object]:
        options = SimulationOptions(limits=LIMITS, kv_blocks=blocks, each_step=each_step)
        report = simulate(load(7, rate_per_s), TINY, measured_device(), scheduler, options=options)
        return [seen(report.records), report.to_dict()]

    assert replay(each_step=False) == replay(each_step=True)


def test_many_engines_with_links_and_slots_that_are_all_taken_do_the_same() -> None:
    boxes = tuple(dataclasses.replace(measured_device(), name=f"box-{i}") for i in range(3))
    links = tuple(
        Link(source=a.name, target=b.name, bytes_per_s=1e6, latency_s=2e-3) for a in boxes for b in boxes
    )
    cluster = Cluster(devices=boxes, links=links)
    made = plan("data-parallel", TINY, cluster, Workload(prompt_tokens=100, concurrency=6))
    fleet = Fleet(
        spec=TINY,
        cluster=cluster,
        plan=made,
        origin="box-0",
        context=RunContext(objective=Objective(deadline_s=3.0)),
    )

    def replay(*, each_step: bool) -> list[object]:
        options = SimulationOptions(
            limits=dataclasses.replace(LIMITS, max_sequences=2), kv_blocks=200, each_step=each_step
        )
        report = simulate_fleet(load(11, 60.0), fleet, Policies.of(offload="fastest"), options=options)
        return [seen(report.total.records), report.to_dict()]

    assert replay(each_step=False) == replay(each_step=True)


def test_taking_steps_at_once_asks_the_scheduler_far_less_often() -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Counting(Sarathi):
        asked: list[int] = dataclasses.field(default_factory=list)

        def _order(self, state: SchedulerInput):  # type: ignore[no-untyped-def]
            self.asked.append(len(state.running))
            return Sarathi._order(self, state)

    counting = Counting()
    items = (TraceItem(id="one", prompt_tokens=10, output_tokens=300),)
    report = simulate(items, TINY, measured_device(), counting, options=SimulationOptions(kv_blocks=400))
    assert report.steps == 300
    assert len(counting.asked) <= 4


def test_a_scheduler_that_plans_in_its_own_way_is_asked_for_every_step() -> None:
    class Halting(Sarathi):
        __slots__ = ()

        def _plan(self, *arguments):  # type: ignore[no-untyped-def]
            return Sarathi._plan(self, *arguments)

    state = SchedulerInput(
        now_s=0.0, waiting=(), running=(), free_blocks=1, block_size=16, limits=EngineLimits()
    )
    assert Sarathi().steady(state)
    assert not Halting().steady(state)


@pytest.mark.parametrize("dense", [0.0, 1.0])
@pytest.mark.parametrize(
    "contexts", [(5,), (1, 1, 1), (20, 61), (70, 30, 900, 64), (600, 601, 1300), (63, 10, 20)]
)
def test_the_times_of_steps_in_a_row_are_those_of_each_to_the_last_bit(
    contexts: tuple[int, ...], dense: float
) -> None:
    box = measured_device()
    box = dataclasses.replace(box, extra={**box.extra, "dense_attention": dense})
    calibration = Calibration(factors=(1.1, 0.9, 1.3, 0.7), rates=(1e-5, 1e-6, 3e-7, 1e-9, 1e-9), steps=9)
    for cost in (
        StepCost(profile=box, spec=TINY),
        StepCost(profile=box, spec=TINY, calibration=calibration),
        StepCost(profile=GPU, spec=LLAMA_1B),
    ):
        each = [
            cost.seconds(StepShape.from_sequences([(1, c + i) for c in contexts], rows=len(contexts)))
            for i in range(80)
        ]
        assert np.array_equal(cost.decode_seconds(contexts, 80), each)


def test_a_request_that_comes_in_the_middle_is_served_from_the_next_step_on() -> None:
    def replay(*, each_step: bool) -> list[tuple[object, ...]]:
        options = SimulationOptions(limits=LIMITS, kv_blocks=400, each_step=each_step)
        first = TraceItem(id="first", prompt_tokens=10, output_tokens=200, hints=Hints(next="end"))
        alone = simulate([first], TINY, measured_device(), options=options).records[0].token_times_s
        # In the midst of a step, and exactly at the end of one.
        items = [first] + [
            TraceItem(id=f"{at}", arrival_s=at, prompt_tokens=20, output_tokens=30)
            for at in ((alone[40] + alone[41]) / 2, alone[90])
        ]
        return seen(simulate(items, TINY, measured_device(), options=options).records)

    assert replay(each_step=False) == replay(each_step=True)
