"""Operators on unlike devices, in the simulator, against the best that one kind of device does by itself.

Settings were fixed first, seed 1 was looked at meanwhile; measured are seeds 2 and 3. FastDecode: LLaMA 7B on
an A10 with two EPYC sockets behind a link of 100 Gbit/s, 200 requests at once with 64 to 192 tokens in and
384 to 640 out, so that keys and values are many times what the A10 has room for; seed 1 gained 2.8.
Complementary: LLaMA 13B in 8 bits on an RTX 4090, a Xeon 8480+ and a Versal VHK158 over PCIe, 120
conversations at once; seed 1 gained 1.34, and 1.07 on `generation`, whose keys and values the 4090 nearly
holds.
"""

from __future__ import annotations

import dataclasses

import pytest

import phase_worlds
from evidence.plugin import Measure
from pentad.errors import Infeasible
from pentad.execution.device import Cluster, DeviceProfile, LinkSpeed
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import ModelSpec, Rope
from pentad.execution.uniform import uniform_spec
from pentad.resource.placement import ModelForm, PlacementProblem, Plan, Workload
from pentad.resource.placement.auto import AutoPlacement
from pentad.resource.placement.complementary import Complementary
from pentad.resource.placement.fastdecode import FastDecode
from pentad.resource.simulator import Fleet, Policies, SimulationOptions, TraceItem, poisson, simulate_fleet

LLAMA_7B = uniform_spec(
    name="llama-7b",
    family="llama",
    vocab_size=32_000,
    layers=32,
    width=4096,
    heads=32,
    kv_heads=32,
    head_dim=128,
    ffn_width=11_008,
    context_length=4096,
    positions=Rope(dim=128),
)
Lengths = tuple[tuple[int, int], tuple[int, int]]


def at_once(count: int, lengths: Lengths, seed: int) -> tuple[TraceItem, ...]:
    items = poisson(count, rate_per_s=1.0, prompt_tokens=lengths[0], output_tokens=lengths[1], seed=seed)
    return tuple(dataclasses.replace(item, arrival_s=0.0) for item in items)


def asked(
    spec: ModelSpec,
    devices: tuple[DeviceProfile, ...],
    lengths: Lengths,
    requests: int,
    form: ModelForm,
    rate: float,
) -> PlacementProblem:
    load = Workload(prompt_tokens=sum(lengths[0]) // 2, new_tokens=sum(lengths[1]) // 2, concurrency=requests)
    cluster = Cluster(devices=devices, default_link=LinkSpeed(bytes_per_s=rate, latency_s=1e-5))
    return PlacementProblem(spec=spec, cluster=cluster, workload=load, form=form)


def throughput(problem: PlacementProblem, plan: Plan, items: tuple[TraceItem, ...]) -> float:
    limits = EngineLimits(max_batch_tokens=512, max_sequences=512, max_waiting=1000)
    fleet = Fleet(spec=problem.spec, cluster=problem.cluster, plan=plan)
    options = SimulationOptions(limits=limits, form=problem.form)
    report = simulate_fleet(items, fleet, Policies.of(offload="fastest"), options=options)
    assert all(record.completed for record in report.total.records)
    return report.total.throughput_tokens_per_s


def by_itself(problem: PlacementProblem, device: DeviceProfile, items: tuple[TraceItem, ...]) -> float:
    """What one device does with a batch as large as its memory allows."""
    requests = problem.workload.concurrency
    while requests:
        load = dataclasses.replace(problem.workload, concurrency=requests)
        alone = dataclasses.replace(problem, cluster=Cluster(devices=(device,)), workload=load)
        try:
            return throughput(alone, AutoPlacement().plan(alone), items)
        except Infeasible:
            requests //= 2
    return 0.0


@pytest.mark.slow
@pytest.mark.row("cost-fastdecode", "effect", claims=(2,))
@pytest.mark.parametrize("seed", [2, 3])
def test_keys_and_values_on_processors_outgrow_the_memory_of_the_accelerator(
    seed: int, measured: Measure
) -> None:
    lengths: Lengths = ((64, 192), (384, 640))
    devices = (*phase_worlds.several("a10", 1), *phase_worlds.several("epyc-9654-768gb", 2))
    problem = asked(LLAMA_7B, devices, lengths, 200, ModelForm(), 1.25e10)
    items = at_once(200, lengths, seed)
    turns, waits = (throughput(problem, FastDecode(batches=n).plan(problem), items) for n in (2, 1))
    measured(
        "throughput over the accelerator alone",
        turns / by_itself(problem, devices[0], items),
        at_least=1.5,
        unit="x",
    )
    measured("two batches that take turns over one", turns / waits, at_least=1.1, unit="x")


@pytest.mark.slow
@pytest.mark.row("het-inter-accel", "effect", claims=(1,))
@pytest.mark.parametrize("seed", [2, 3])
def test_cpu_gpu_and_fpga_together_serve_more_than_any_one_kind(seed: int, measured: Measure) -> None:
    lengths = phase_worlds.MIXES["conversation"]
    devices = tuple(
        device
        for name in ("rtx-4090", "xeon-8480plus-512gb", "versal-vhk158")
        for device in phase_worlds.several(name, 1)
    )
    problem = asked(phase_worlds.LLAMA_13B, devices, lengths, 64, ModelForm(weight_bits=8, kv_bits=8), 2.5e10)
    items = at_once(120, lengths, seed)
    own = throughput(problem, Complementary().plan(problem), items)
    best = max(by_itself(problem, device, items) for device in devices)
    measured("throughput over the best single kind", own / best, at_least=1.2, unit="x")
