"""Tenants in one step: the policy on plain data, and its effect on a virtual clock."""

from __future__ import annotations

import dataclasses
import functools

import pytest
from resource_samples import measured_device
from test_resource_scheduling import Seq, preempted, running, state, work
from test_resource_short_share import PACE, SMALL

from pentad.execution.pace import Pace
from pentad.execution.scheduling import EngineLimits, SchedulerInput
from pentad.execution.served import ServedTokens
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.scheduling.tenant_shares import shares
from pentad.resource.simulator import SimulationOptions, SimulationReport, TraceItem, simulate

MANY = tuple(running(f"a{i}", 40, tenant="ann", priority=-(2**31), arrived_s=float(i)) for i in range(30))
FEW = running("b", 40, tenant="bob", arrived_s=90.0)


def shared(state: SchedulerInput, ann: int = 0, bob: int = 0, pace: Pace = PACE) -> SchedulerInput:
    return dataclasses.replace(state, pace=pace, served={"ann": ann, "bob": bob})


def test_beside_a_tenant_with_one_sequence_one_with_thirty_gets_its_half_of_the_step() -> None:
    busy = state(running=(*MANY, FEW), free=1000, tokens=512, sequences=32)
    # Reading the weights takes the time of 20 tokens here, so ann's half is 21 tokens, bob's 1 and they.
    assert work(Sarathi(tenant_slowdown=2.0).plan(shared(busy))) == {
        "b": 1,
        **{f"a{i}": 1 for i in range(21)},
    }
    unmeasured = work(Sarathi(tenant_slowdown=2.0).plan(shared(busy, pace=Pace())))
    assert unmeasured == {"b": 1, "a0": 1}
    assert len(work(Sarathi(tenant_slowdown=None).plan(shared(busy)))) == 31


def test_a_newcomer_takes_a_place_from_who_has_more_and_not_the_last_one() -> None:
    full = state(running=MANY[:4], waiting=(Seq(id="b", num_tokens=20, tenant="bob"),), sequences=4)
    plan = Sarathi().plan(shared(full))
    assert preempted(plan) == ["a3"]
    assert "b" in work(plan)
    alone = state(running=MANY[:1], waiting=(Seq(id="b", num_tokens=20, tenant="bob"),), sequences=1)
    assert preempted(Sarathi().plan(shared(alone))) == []


def test_places_are_not_passed_to_and_fro() -> None:
    waiting = tuple(Seq(id=f"w{i}", num_tokens=20, tenant=t) for i, t in enumerate(("ann", "bob") * 3))
    even = state(running=(MANY[0], FEW, MANY[1]), waiting=waiting, sequences=3)
    assert preempted(Sarathi().plan(shared(even))) == []


def test_priorities_order_the_requests_of_a_tenant_only() -> None:
    waiting = (
        *(Seq(id=f"a{i}", num_tokens=30, tenant="ann", priority=-(2**31)) for i in range(3)),
        Seq(id="b0", num_tokens=30, tenant="bob", arrived_s=9.0),
        Seq(id="b1", num_tokens=30, tenant="bob", arrived_s=9.5, priority=-1),
    )
    plan = Sarathi().plan(shared(state(waiting=waiting, sequences=2), ann=100))
    assert [seq.id for seq, _ in plan.work] == ["b1", "a0"]


def test_a_step_too_small_for_all_goes_to_who_has_been_served_least() -> None:
    assert shares({"ann": 9, "bob": 9}, {"ann": 5, "bob": 7}, 1, PACE, 2.0) == {"ann": 1}
    assert shares({"ann": 9, "bob": 1}, {"ann": 7, "bob": 5}, 1, PACE, 2.0) == {"bob": 1}
    assert shares({"ann": 900, "bob": 900}, {}, 512, PACE, 2.0) == {"ann": 256, "bob": 256}


def test_who_cannot_go_on_leaves_the_step_to_the_others() -> None:
    waiting = (Seq(id="b", num_tokens=800, tenant="bob"),)
    plan = Sarathi().plan(shared(state(running=MANY[:1], waiting=waiting, tokens=1, free=10), ann=100))
    assert work(plan) == {"a0": 1}


def test_the_counter_starts_newcomers_level_and_forgives_nobody_for_leaving() -> None:
    served = ServedTokens()
    served.enter("ann")
    served.add([(MANY[0], 100)])
    assert served.shown() == {}, "nothing is counted for one alone"
    served.enter("bob")
    served.add([(MANY[0], 7), (FEW, 2)])
    assert served.shown() == {"ann": 7, "bob": 2}
    served.leave("ann")
    served.enter("ann")
    assert served.shown() == {"ann": 7, "bob": 2}
    served.enter("eve")
    assert served.shown()["eve"] == 2
    for tenant in ("ann", "bob", "eve"):
        served.leave(tenant)
    assert served.shown() == {}


@pytest.mark.parametrize("slowdown", [1.0, -1.0, 1001.0, float("nan")])
def test_an_impossible_slowdown_is_refused(slowdown: float) -> None:
    with pytest.raises(ValueError, match="tenant_slowdown"):
        Sarathi(tenant_slowdown=slowdown)


# On a virtual clock

START_S = 3.0
VICTIM = tuple(
    TraceItem(
        id=f"v{i}",
        tenant="bob",
        prompt_tokens=30,
        output_tokens=64,
        arrival_s=START_S if i == 0 else 0.0,
        after=f"v{i - 1}" if i else None,
    )
    for i in range(3)
)
WARM = (TraceItem(id="warm", tenant="ann", prompt_tokens=40, output_tokens=4),)


def greedy(count: int, prompt: int, output: int, priority: int = 0) -> tuple[TraceItem, ...]:
    """What comes at once, a second before the other tenant, and lasts longer than that one needs."""
    return tuple(
        TraceItem(
            id=f"g{i}",
            tenant="ann",
            arrival_s=START_S - 1.0,
            prompt_tokens=prompt,
            output_tokens=output,
            priority=priority,
        )
        for i in range(count)
    )


LOADS = {
    "one": greedy(1, 30, 400),
    "more than there is room for": greedy(60, 30, 100),
    "urgent": greedy(60, 30, 100, priority=-(2**31)),
    "urgent documents": greedy(8, 3000, 20, priority=-(2**31)),
    "all kinds": tuple(
        dataclasses.replace(item, id=f"{kind}{item.id}")
        for kind, items in enumerate((greedy(30, 30, 90, -9), greedy(4, 3000, 20, -9), greedy(30, 200, 9)))
        for item in items
    ),
}


def replay(*trace: TraceItem, slowdown: float | None = Sarathi().tenant_slowdown) -> SimulationReport:
    return simulate(
        trace,
        SMALL,
        measured_device(),
        Sarathi(tenant_slowdown=slowdown),
        options=SimulationOptions(limits=EngineLimits(), kv_blocks=1500),
    )


def victim_s(report: SimulationReport) -> list[float]:
    return [record.completion_s for record in report.records if record.item.tenant == "bob"]


@functools.cache
def alone_s() -> tuple[float, ...]:
    return tuple(victim_s(replay(*WARM, *VICTIM)))


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_whatever_another_asks_for_a_tenant_takes_twice_its_time_alone_at_most(
    load: tuple[TraceItem, ...],
) -> None:
    report = replay(*WARM, *load, *VICTIM)
    ratios = [beside / alone for beside, alone in zip(victim_s(report), alone_s(), strict=True)]
    print(f"{max(ratios):.2f}x")
    assert max(ratios) <= 2
    assert all(record.finished_s is not None for record in report.records), "something starved"


def test_without_shares_a_tenant_with_many_slows_another_by_more() -> None:
    ratios = {
        name: max(
            beside / alone
            for beside, alone in zip(
                victim_s(replay(*WARM, *LOADS[name], *VICTIM, slowdown=None)), alone_s(), strict=True
            )
        )
        for name in ("more than there is room for", "urgent")
    }
    print(ratios)
    assert min(ratios.values()) > 2


def test_a_tenant_alone_is_planned_as_if_there_were_no_shares() -> None:
    load = greedy(20, 300, 20)
    assert replay(*load) == replay(*load, slowdown=None)
