"""Engines that are lost: their requests go on elsewhere with the same tokens, and what is paid again."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from resource_samples import TINY, measured_device

from pentad.errors import InvalidRequest, UnknownName
from pentad.execution.device import Cluster, Link
from pentad.execution.scheduling import EngineLimits
from pentad.resource.placement import Workload, plan
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    LinkChange,
    Outage,
    Policies,
    SimulationOptions,
    TraceItem,
    agent_run,
    moving,
    poisson,
    simulate_fleet,
)

LOAD = poisson(40, rate_per_s=40.0, prompt_tokens=(20, 200), output_tokens=(20, 80), seed=4)


def replay(
    *outages: Outage,
    load: tuple[TraceItem, ...] = LOAD,
    boxes: int = 2,
    cold_start_s: float = 0.5,
    changes: tuple[LinkChange, ...] = (),
    origin: str | None = None,
    each_step: bool = False,
) -> FleetReport:
    devices = tuple(dataclasses.replace(measured_device(), name=f"box-{i}") for i in range(boxes))
    pairs = itertools.permutations([device.name for device in devices], 2)
    links = tuple(Link(source=a, target=b, bytes_per_s=1e5, latency_s=1e-3) for a, b in pairs)
    cluster = Cluster(devices=devices, links=links)
    made = plan("data-parallel", TINY, cluster, Workload(prompt_tokens=100, concurrency=boxes))
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=128, max_sequences=8, max_waiting=1000),
        kv_blocks=400,
        cold_start_s=cold_start_s,
        each_step=each_step,
    )
    fleet = Fleet(spec=TINY, cluster=cluster, plan=made, origin=origin)
    policies = Policies.of(offload="fastest")
    return simulate_fleet(load, fleet, policies, options=options, outages=outages, changes=changes)


@pytest.mark.parametrize("each_step", [False, True])
def test_requests_of_a_lost_engine_go_on_elsewhere_with_the_same_tokens(*, each_step: bool) -> None:
    whole = replay()
    broken = replay(Outage(device="box-1", at_s=0.6), each_step=each_step)
    assert len(broken.total.completed) == len(LOAD)
    assert [r.tokens for r in broken.total.records] == [r.tokens for r in whole.total.records]
    moved = [record for record in broken.total.records if record.moves]
    assert moved
    assert all(record.engine == "box-0" for record in moved)
    assert all(len(r.token_times_s) == r.item.output_tokens for r in broken.total.records)
    assert all(r.token_times_s == sorted(r.token_times_s) for r in broken.total.records)
    # Behind the loss nothing runs on it, and its time is not paid for any more.
    assert all(r.engine == "box-0" for r in broken.total.records if r.arrived_s > 0.6)
    assert next(engine for engine in broken.engines if engine.name == "box-1").up_s == pytest.approx(0.6)


def test_what_is_computed_again_is_the_prompt_and_the_answer_so_far() -> None:
    item = TraceItem(id="one", prompt_tokens=100, output_tokens=60)
    alone = replay(load=(item,)).total.records[0]
    at_s = (alone.token_times_s[24] + alone.token_times_s[25]) / 2
    report = replay(Outage(device="box-0", at_s=at_s), load=(item,))
    (record,) = report.total.records
    assert record.token_times_s[:25] == alone.token_times_s[:25]
    assert record.tokens == alone.tokens
    assert record.recomputed_tokens == 125
    data = report.to_dict()
    assert data["moved_requests"] == 1
    assert data["recomputed_tokens"] == 125
    # The prompt and 25 steps by the lost engine, the last for nothing; then all again but the last token.
    assert report.total.computed_tokens == 100 + 25 + 159


def test_a_notice_lets_an_engine_end_what_it_has() -> None:
    told = replay(Outage(device="box-1", at_s=1.2, notice_s=0.7))
    surprised = replay(Outage(device="box-1", at_s=1.2))
    assert surprised.to_dict()["moved_requests"] > told.to_dict()["moved_requests"]
    assert all(r.engine == "box-0" for r in told.total.records if 0.5 < r.arrived_s < 1.2 and not r.moves)


def test_a_machine_that_is_back_starts_cold_and_takes_requests_again() -> None:
    report = replay(Outage(device="box-1", at_s=0.2, for_s=0.3), cold_start_s=0.1)
    back = [r for r in report.total.records if r.engine == "box-1" and r.arrived_s > 0.2]
    assert back
    assert min(r.arrived_s for r in back) >= 0.6
    assert report.cold_starts == 1


def test_where_all_machines_are_away_requests_wait_and_runs_go_on() -> None:
    steps = agent_run("run", arrival_s=0.0, steps=3, first_prompt=60, added=30, output=10, pause_s=0.1)
    report = replay(Outage(device="box-0", at_s=0.05, for_s=2.0), load=steps, boxes=1)
    assert [r.completed for r in report.total.records] == [True] * 3
    assert report.total.records[-1].arrived_s > 2.5
    gone = replay(Outage(device="box-0", at_s=0.0), load=steps[:1], boxes=1).to_dict()
    assert gone["refused"] == {"unavailable": 1}


def test_outages_of_nobody_or_at_no_time_are_refused() -> None:
    with pytest.raises(UnknownName, match="no engine needs a device 'box-9'"):
        replay(Outage(device="box-9", at_s=1.0))
    with pytest.raises(InvalidRequest, match="at_s"):
        Outage(device="box-0", at_s=-1.0)


def test_a_device_that_drives_away_has_a_slower_and_slower_link() -> None:
    changes = moving("box-0", [(0.0, 0.0, 0.0), (10.0, 500.0, 0.0)], {"box-1": (0.0, 0.0)}, every_s=1.0)
    assert [change.at_s for change in changes[:2]] == [0.0, 2.0]  # full rate up to 50 m
    factors = [change.factor for change in changes]
    assert factors == sorted(factors, reverse=True)
    at_100_m = next(change.factor for change in changes if change.at_s == 2.0)
    assert at_100_m == pytest.approx(math.log2(1 + 100 / 8) / math.log2(101))
    near = replay(origin="box-0", load=LOAD[:20])
    far = replay(
        origin="box-0",
        load=LOAD[:20],
        changes=(LinkChange(at_s=0.0, source="box-0", target="box-1", factor=0.01),),
    )
    assert far.total.completion.mean > near.total.completion.mean
    with pytest.raises(InvalidRequest, match="later than the one before"):
        moving("box-0", [(1.0, 0.0, 0.0), (1.0, 5.0, 0.0)], {"box-1": (0.0, 0.0)})
