"""Which kinds of devices serve which phase, on rates given by hand."""

from __future__ import annotations

import dataclasses

import pytest
from resource_samples import GPU

from pentad.execution.device import Cluster, DeviceProfile, LinkSpeed
from pentad.resource.placement import PlacementProblem, Workload
from pentad.resource.placement.hetero_pool import HeteroPool
from pentad.resource.placement.phase_aware import PhaseAware
from pentad.resource.placement.phase_pools import cheapest_pools, largest_pools
from pentad.resource.placement.phase_rates import Kind, Shape
from pentad.types import Objective
from placement_samples import decoder

ONE = Shape(tensor=1, pipeline=1)


def kind(name: str, count: int, *, prompts: float, answers: float, price: float) -> Kind:
    return Kind(
        names=tuple(f"{name}-{i}" for i in range(count)),
        device=GPU,
        rates={"prefill": {ONE: prompts}, "decode": {ONE: answers}, "both": {ONE: 0.0}},
        price=price,
    )


QUICK = kind("quick", 4, prompts=12.0, answers=4.0, price=4.0)
WIDE = kind("wide", 4, prompts=2.0, answers=4.0, price=1.0)


@pytest.mark.row("res-hetero-pool", "mechanism")
def test_each_phase_goes_to_the_kind_that_serves_most_of_it_for_the_money() -> None:
    # By hand: one quick device computes 12 prompts a second, three wide ones as many answers: 12 for 7. Wide
    # ones alone serve 4 for 3 (two for prompts, one for answers), quick ones alone 12 for 16.
    found = cheapest_pools([QUICK, WIDE])
    assert found is not None
    assert [(own.names[0], len(shapes)) for own, shapes in found.prefill] == [("quick-0", 1)]
    assert [(own.names[0], len(shapes)) for own, shapes in found.decode] == [("wide-0", 3)]
    assert (found.rate_per_s, found.price) == (12.0, 7.0)
    dear = dataclasses.replace(QUICK, price=12.0)
    cheaper = cheapest_pools([dear, WIDE])
    assert cheaper is not None
    assert {own.names[0] for own, _ in (*cheaper.prefill, *cheaper.decode)} == {"wide-0"}, "12 for 15"


@pytest.mark.row("par-phase-aware", "mechanism")
def test_all_devices_are_divided_so_that_neither_phase_waits() -> None:
    # By hand: two quick ones compute 24 prompts a second, the other two and all wide ones 24 answers; with
    # one there are 12 prompts, with three 20 answers.
    found = largest_pools([QUICK, WIDE])
    assert found is not None
    assert found.rate_per_s == 24.0
    prompts = {own.names[0]: len(shapes) for own, shapes in found.prefill if shapes}
    assert prompts == {"quick-0": 2}


def problem(*devices: DeviceProfile, wishes: Objective) -> PlacementProblem:
    cluster = Cluster(devices=devices, default_link=LinkSpeed(bytes_per_s=1e11, latency_s=1e-5))
    load = Workload(prompt_tokens=512, new_tokens=64)
    return PlacementProblem(spec=decoder(6), cluster=cluster, workload=load, objective=wishes)


@pytest.mark.row("par-phase-aware", "mechanism")
def test_the_plan_has_phases_only_where_these_serve_more() -> None:
    devices = tuple(dataclasses.replace(GPU, name=f"gpu-{i}") for i in range(4))
    for wishes in (Objective(), Objective(ttft_s=0.05, inter_token_s=0.001)):
        asked = problem(*devices, wishes=wishes)
        apart, together = PhaseAware().rates(asked)
        plan = PhaseAware().plan(asked)
        assert bool(plan.handoffs) == (apart > together)


@pytest.mark.row("res-hetero-pool", "mechanism")
def test_devices_that_are_too_dear_stand_idle() -> None:
    cheap = tuple(dataclasses.replace(GPU, name=f"cheap-{i}", price_per_hour=0.5) for i in range(2))
    dear = tuple(dataclasses.replace(GPU, name=f"dear-{i}", price_per_hour=50.0) for i in range(2))
    plan = HeteroPool().plan(problem(*cheap, *dear, wishes=Objective()))
    assert {stage.device.partition("-")[0] for stage in plan.stages} == {"cheap"}
