"""Replicas of unequal pipelines: devices and layers by speed, requests by share."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from resource_samples import GPU, LLAMA_1B, TINY

from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.device import Cluster, DeviceProfile, Link, MemoryTier
from pentad.resource.placement import Workload, plan
from pentad.resource.placement.replicated import Replicated


def device(name: str, rate: float, gib: float = 16) -> DeviceProfile:
    memory = (MemoryTier(name="hbm", capacity_bytes=int(gib * 2**30), read_bytes_per_s=rate),)
    return dataclasses.replace(GPU, name=name, memory=memory, flops_per_s={"bf16": 100 * rate})


def meshed(*devices: DeviceProfile) -> Cluster:
    pairs = itertools.permutations([d.name for d in devices], 2)
    links = tuple(Link(source=a, target=b, bytes_per_s=1e9, latency_s=1e-4) for a, b in pairs)
    return Cluster(devices=devices, links=links)


CLUSTER = meshed(device("a", 8e11), device("b", 4e11), device("c", 4e11), device("d", 1e11))
LOAD = Workload(prompt_tokens=256, new_tokens=128, concurrency=8)


def test_every_replica_holds_every_layer_and_shares_add_up_to_all_requests() -> None:
    found = plan("replicated", LLAMA_1B, CLUSTER, LOAD)
    assert len(found.replicas) == 2
    assert sum(replica.weight for replica in found.replicas) == pytest.approx(1)
    for replica in found.replicas:
        ends = [0, *(stage.end_layer for stage in replica.stages)]
        assert [stage.first_layer for stage in replica.stages] == ends[:-1]
        assert ends[-1] == LLAMA_1B.layers
    used = [stage.device for stage in found.stages]
    assert sorted(used) == ["a", "b", "c", "d"]


def test_a_faster_device_holds_more_layers_and_its_replica_more_requests() -> None:
    found = plan("replicated", LLAMA_1B, CLUSTER, LOAD)
    rates = {d.name: d.memory[0].read_bytes_per_s for d in CLUSTER.devices}
    for replica in found.replicas:
        layers = [stage.end_layer - stage.first_layer for stage in replica.stages]
        speeds = [rates[stage.device] for stage in replica.stages]
        assert sorted(zip(speeds, layers, strict=True)) == sorted(
            zip(sorted(speeds), sorted(layers), strict=True)
        )
    loads = {sum(rates[s.device] for s in replica.stages): replica.weight for replica in found.replicas}
    assert loads[max(loads)] > loads[min(loads)]


def test_two_replicas_generate_more_than_one_pipeline_over_all() -> None:
    both = plan("replicated", LLAMA_1B, CLUSTER, LOAD)
    one = plan("uniform", LLAMA_1B, CLUSTER, LOAD)
    assert both.throughput_tokens_per_s > one.throughput_tokens_per_s


def test_the_plan_says_which_share_goes_where() -> None:
    found = plan("replicated", LLAMA_1B, CLUSTER, LOAD)
    (decision,) = (one for one in found.decisions if one.subject == "placement")
    assert all(f"for {replica.weight:.0%}" in decision.chosen for replica in found.replicas)
    assert len(found.to_dict()["replicas"]) == 2


def test_money_is_that_of_the_replica_which_serves() -> None:
    def priced(price: float) -> Cluster:
        devices = tuple(dataclasses.replace(d, price_per_hour=price) for d in CLUSTER.devices)
        return dataclasses.replace(CLUSTER, devices=devices)

    cheap, dear = (plan("replicated", LLAMA_1B, priced(p), LOAD).cost_per_request for p in (1.0, 2.0))
    assert cheap is not None
    assert dear == pytest.approx(2 * cheap)
    half = Cluster(devices=CLUSTER.devices[:1])
    alone = plan("replicated:replicas=1", LLAMA_1B, half, LOAD)
    single = plan("single", LLAMA_1B, half, LOAD)
    assert alone.throughput_tokens_per_s == single.throughput_tokens_per_s


def test_too_few_devices_layers_or_bytes_are_refused_with_the_remedy() -> None:
    with pytest.raises(Infeasible, match="set replicas to 1 or add a device"):
        plan("replicated", TINY, Cluster(devices=(GPU,)))
    many = meshed(*(device(f"d{i}", 1e11) for i in range(6)))
    with pytest.raises(Infeasible, match="too few for 6 stages"):
        plan("replicated:replicas=1", TINY, many)
    with pytest.raises(Infeasible, match=r"device 'y' has 0\.\d+ GiB free"):
        plan("replicated", LLAMA_1B, meshed(device("x", 8e11), device("y", 1e11, gib=0.5)))
    with pytest.raises(InvalidRequest, match="replicas is 0, must be at least 1"):
        Replicated(replicas=0)
