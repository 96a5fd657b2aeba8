"""Worlds of many engines: one clock, the real engines, links between machines, policies as live."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import time

import pytest
from resource_samples import GPU, LLAMA_1B, TINY, measured_device

from pentad.errors import Infeasible, UnknownName
from pentad.execution.device import Cluster, DeviceProfile, Link
from pentad.execution.scheduling import EngineLimits
from pentad.resource.cluster_file import read_cluster
from pentad.resource.placement import Workload, plan
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    Policies,
    SimulationOptions,
    TraceItem,
    agent_run,
    poisson,
    simulate,
    simulate_fleet,
)
from pentad.types import Objective, RunContext

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
LOAD = poisson(60, rate_per_s=60.0, prompt_tokens=(20, 300), output_tokens=(5, 40), seed=3)
OPTIONS = SimulationOptions(
    limits=EngineLimits(max_batch_tokens=128, max_sequences=8, max_waiting=1000), kv_blocks=400
)


def cluster(*devices: DeviceProfile, latency_s: float = 1e-3, bytes_per_s: float = 1e8) -> Cluster:
    pairs = itertools.permutations([device.name for device in devices], 2)
    links = tuple(Link(source=a, target=b, bytes_per_s=bytes_per_s, latency_s=latency_s) for a, b in pairs)
    return Cluster(devices=devices, links=links)


def boxes(count: int) -> tuple[DeviceProfile, ...]:
    return tuple(dataclasses.replace(measured_device(), name=f"box-{i}") for i in range(count))


def run(
    machines: Cluster,
    trace: tuple[TraceItem, ...] = LOAD,
    *,
    placement: str = "data-parallel",
    offload: str = "local",
    origin: str | None = None,
    context: RunContext | None = None,
) -> FleetReport:
    fleet = Fleet(
        spec=TINY,
        cluster=machines,
        plan=plan(placement, TINY, machines, Workload(prompt_tokens=100, concurrency=8)),
        origin=origin,
        context=context or RunContext(),
    )
    return simulate_fleet(trace, fleet, Policies.of(offload=offload), options=OPTIONS)


def test_sixty_four_engines_on_three_kinds_of_device_run_one_load_in_seconds() -> None:
    machines = read_cluster(EXAMPLES / "cluster-64.yaml")
    assert len({device.memory for device in machines.devices}) == 3
    load = poisson(256, rate_per_s=1000.0, prompt_tokens=(64, 512), output_tokens=(4, 24), seed=1)
    found = plan("data-parallel", LLAMA_1B, machines, Workload(concurrency=64))
    fleet = Fleet(spec=LLAMA_1B, cluster=machines, plan=found)
    policies = Policies.of(offload="flow")
    assert policies.scheduler == Sarathi(), "the scheduler of every engine is the one that is used live"
    begin = time.thread_time()
    report = simulate_fleet(load, fleet, policies)
    assert time.thread_time() - begin < 15
    assert len(report.engines) == 64
    assert len(report.total.completed) == len(load)
    assert sum(engine.given for engine in report.engines) == len(load)
    assert {engine.name.rpartition("-")[0] for engine in report.engines if engine.given} == {
        "server",
        "desk",
        "edge",
    }
    for engine, replica in zip(report.engines, found.replicas, strict=True):
        assert engine.given == pytest.approx(len(load) * replica.weight, abs=1.5)
    assert report.total.steps == sum(engine.report.steps for engine in report.engines)
    assert [len(record.tokens) for record in report.total.records] == [item.output_tokens for item in load]


def test_a_world_of_one_engine_is_the_simulation_of_its_device() -> None:
    alone = simulate(LOAD, TINY, measured_device(), options=OPTIONS)
    world = run(Cluster(devices=(measured_device(),)))
    assert [r.token_times_s for r in world.total.records] == [r.token_times_s for r in alone.records]


def test_the_same_arguments_give_the_same_report_and_it_is_plain_data() -> None:
    first, second = (run(cluster(*boxes(3)), offload="fastest") for _ in range(2))
    assert first.to_dict() == second.to_dict()
    data = json.loads(json.dumps(first.to_dict()))
    assert [engine["name"] for engine in data["engines"]] == ["box-0", "box-1", "box-2"]
    assert sum(engine["requests"] for engine in data["engines"]) == data["requests"]


def test_engines_work_at_the_same_time_and_tokens_do_not_depend_on_where_they_are_computed() -> None:
    rush = tuple(dataclasses.replace(item, arrival_s=item.arrival_s / 20) for item in LOAD)
    one, four = run(cluster(*boxes(1)), rush), run(cluster(*boxes(4)), rush)
    assert [r.tokens for r in one.total.records] == [r.tokens for r in four.total.records]
    assert four.total.completion.mean < 0.5 * one.total.completion.mean
    spans = [
        (min(r.arrived_s for r in e.report.records), max(r.finished_s or 0 for r in e.report.records))
        for e in four.engines
    ]
    assert max(start for start, _ in spans) < min(end for _, end in spans)


def test_a_prompt_takes_its_link_to_the_engine_and_each_token_its_way_back() -> None:
    here, there = boxes(2)
    item = (TraceItem(id="a", prompt_tokens=100, output_tokens=3),)
    near = run(Cluster(devices=(here,)), item)
    machines = cluster(here, there, latency_s=0.3, bytes_per_s=4000.0)
    slow = dataclasses.replace(there, price_per_hour=3600.0)
    away = run(dataclasses.replace(machines, devices=(here, slow)), item, offload="fastest", origin="box-0")
    assert away.total.records[0].engine == "box-0", "the link is far slower than the box"
    fleet = Fleet(
        spec=TINY,
        cluster=machines,
        plan=plan("single", TINY, Cluster(devices=(there,))),
        origin="box-0",
    )
    sent = simulate_fleet(item, fleet, Policies.of(offload="fastest"), options=OPTIONS)
    assert sent.sent_bytes == 400
    extra_s = 0.3 + 400 / 4000.0 + 0.3
    assert sent.total.records[0].ttft_s == pytest.approx(near.total.records[0].ttft_s + extra_s)
    assert sent.total.records[0].gaps_s == pytest.approx(near.total.records[0].gaps_s)


def test_what_is_not_linked_is_not_reached() -> None:
    devices = boxes(2)
    report = run(Cluster(devices=devices), origin="box-1")
    assert [engine.given for engine in report.engines] == [0, len(LOAD)]
    fleet = Fleet(
        spec=TINY,
        cluster=Cluster(devices=devices),
        plan=plan("single", TINY, Cluster(devices=devices[:1])),
        origin="box-1",
    )
    refused = simulate_fleet(LOAD[:2], fleet, options=OPTIONS).total.to_dict()
    assert refused["refused"] == {"infeasible": 2}
    with pytest.raises(UnknownName, match=r"no device 'box-9'; did you mean 'box-"):
        dataclasses.replace(fleet, origin="box-9")


def test_followers_of_a_run_come_after_their_answer_wherever_it_was_computed() -> None:
    items = agent_run("run", arrival_s=1.0, steps=4, first_prompt=60, added=30, output=5, pause_s=0.5)
    records = run(cluster(*boxes(2)), items, offload="flow").total.records
    assert {record.engine for record in records} == {"box-0", "box-1"}
    for before, after in itertools.pairwise(records):
        assert before.finished_s is not None
        assert after.arrived_s == pytest.approx(before.finished_s + 0.5)


def test_a_pipeline_is_one_engine_over_several_devices_and_its_step_takes_the_predicted_time() -> None:
    machines = cluster(*boxes(2), latency_s=0.2)
    report = run(machines, (TraceItem(id="a", prompt_tokens=64, output_tokens=4),), placement="uniform")
    (engine,) = report.engines
    assert engine.devices == ("box-0", "box-1")
    predicted = plan("uniform", TINY, machines, Workload(prompt_tokens=64, new_tokens=4))
    (record,) = report.total.records
    assert record.ttft_s == pytest.approx(predicted.ttft_s, rel=0.02)
    assert record.gaps_s == pytest.approx([predicted.inter_token_s] * 3, rel=0.02)


def test_engines_that_share_a_device_take_turns_on_it() -> None:
    (box,) = boxes(1)
    machines = Cluster(devices=(box,))
    found = plan("single", TINY, machines)
    (replica,) = found.replicas
    halves = dataclasses.replace(found, replicas=(dataclasses.replace(replica, weight=0.5),) * 2)
    items = tuple(TraceItem(id=f"{i}", prompt_tokens=64, output_tokens=20) for i in range(2))
    fleet = Fleet(spec=TINY, cluster=machines, plan=halves)
    shared = simulate_fleet(items, fleet, Policies.of(offload="flow"), options=OPTIONS)
    assert [engine.given for engine in shared.engines] == [1, 1]
    assert sum(e.report.busy_s for e in shared.engines) <= shared.total.span_s * (1 + 1e-9)


def test_a_price_that_no_engine_keeps_refuses_and_one_that_some_keep_binds() -> None:
    dear, cheap = (
        dataclasses.replace(box, price_per_hour=price)
        for box, price in zip(boxes(2), (3600.0, 0.36), strict=True)
    )
    context = RunContext(objective=Objective(max_cost=0.001))
    report = run(cluster(dear, cheap), LOAD[:5], offload="flow", context=context)
    assert [engine.given for engine in report.engines] == [0, 5]
    (decision,) = report.total.records[0].decisions
    assert decision.constraint == "max_cost"
    assert report.cost == pytest.approx(report.total.span_s * (3600.0 + 0.36) / 3600)


def test_data_parallel_leaves_out_devices_that_cannot_hold_the_model() -> None:
    small = dataclasses.replace(
        GPU, name="small", memory=(dataclasses.replace(GPU.memory[0], capacity_bytes=2**30),)
    )
    found = plan("data-parallel", LLAMA_1B, Cluster(devices=(GPU, small)))
    assert [stage.device for stage in found.stages] == ["gpu"]
    assert found.replicas[0].weight == 1
    with pytest.raises(Infeasible, match="set --weight-bits"):
        plan("data-parallel", LLAMA_1B, Cluster(devices=(small,)))
