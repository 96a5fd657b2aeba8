"""Elastic sequence parallelism: which instances compute what, where keys and values lie, and what moves."""

from __future__ import annotations

import dataclasses

import pytest
from resource_samples import GPU, TINY

from pentad.errors import Incompatible, Infeasible
from pentad.execution.device import Cluster, LinkSpeed
from pentad.execution.scheduling import EngineLimits
from pentad.resource.placement import PlacementProblem, Workload
from pentad.resource.placement.loongserve import LoongServe
from pentad.resource.placement.sequence_parallel import sequence_cost
from pentad.resource.placement.single import SingleDevice
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    Policies,
    SimulationOptions,
    TraceItem,
    simulate_fleet,
)
from pentad.resource.simulator.elastic import joined
from pentad.resource.step_shape import StepShape

BOXES = tuple(dataclasses.replace(GPU, name=f"gpu-{i}") for i in range(4))
LONG = dataclasses.replace(TINY, name="long", context_length=65_536)
ASKED = PlacementProblem(
    spec=LONG,
    cluster=Cluster(devices=BOXES, default_link=LinkSpeed(bytes_per_s=1e10, latency_s=1e-6)),
    workload=Workload(prompt_tokens=2000, new_tokens=20, concurrency=4),
)
BLOCKS = 4 * 256
"""4096 tokens of each instance."""
MIXED = tuple(
    TraceItem(id=f"r{i}", arrival_s=0.002 * i, prompt_tokens=tokens, output_tokens=10 + i)
    for i, tokens in enumerate((3000, 40, 9000, 60, 500, 30, 12_000, 80))
)


def run(
    strategy: LoongServe,
    trace: tuple[TraceItem, ...] = MIXED,
    *,
    scheduler: str = "sarathi",
    blocks: int = BLOCKS,
) -> FleetReport:
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=4096, max_sequences=64, max_waiting=100), kv_blocks=blocks
    )
    fleet = Fleet(spec=LONG, cluster=ASKED.cluster, plan=strategy.plan(ASKED))
    return simulate_fleet(trace, fleet, Policies.of(scheduler=scheduler, offload="flow"), options=options)


@pytest.mark.row("par-loongserve", "mechanism")
class TestElasticEngine:
    @pytest.mark.parametrize("degree", [None, 4])
    def test_the_tokens_are_those_of_one_device(self, degree: int | None) -> None:
        fleet = Fleet(spec=LONG, cluster=ASKED.cluster, plan=SingleDevice().plan(ASKED))
        options = SimulationOptions(limits=EngineLimits(max_sequences=64), kv_blocks=BLOCKS * 4)
        alone = simulate_fleet(MIXED, fleet, options=options).total.records
        together = run(LoongServe(degree=degree)).total.records
        assert all(record.completed for record in together)
        assert [record.tokens for record in together] == [record.tokens for record in alone]

    def test_a_prompt_lies_on_several_instances_only_where_one_is_too_small(self) -> None:
        # 9,000 and 12,000 tokens need three instances of 4,096 and all four: pairs of two refuse them.
        refused = [r.item.prompt_tokens for r in run(LoongServe(degree=2)).total.records if not r.completed]
        assert refused == [9000, 12_000]
        assert not [r for r in run(LoongServe()).total.records if not r.completed]

    def test_instances_that_share_a_sequence_go_on_together(self) -> None:
        sets = [frozenset({0}), frozenset({1, 2}), frozenset({2, 3}), frozenset({0})]
        assert sorted(map(sorted, joined(sets))) == [[0], [1, 2, 3]]

    def test_the_engine_orders_its_steps_itself(self) -> None:
        with pytest.raises(Incompatible, match="scheduler 'fcfs'") as caught:
            run(LoongServe(), scheduler="fcfs")
        assert "--scheduler" in str(caught.value.hint)


@pytest.mark.row("par-loongserve", "mechanism", claims=(2,))
def test_scaling_down_behind_a_prompt_moves_no_keys_and_values() -> None:
    assert run(LoongServe()).moved_bytes == 0
    # By hand: of n instances that compute a prompt one keeps it, so all but an n-th goes there behind it.
    one = (TraceItem(id="a", prompt_tokens=12_000, output_tokens=5),)
    cost = sequence_cost(ASKED, [(box.name,) for box in BOXES])
    degree = min(range(1, 5), key=lambda n: cost.prompt_s(StepShape.prefill(12_000), n))
    assert degree > 1
    whole = 12_000 * LONG.kv_bytes_per_token()
    assert run(LoongServe(), one, blocks=4 * BLOCKS).moved_bytes == 0
    moved = run(LoongServe(scale_down="reactive"), one, blocks=4 * BLOCKS).moved_bytes
    assert moved == pytest.approx(whole * (degree - 1) / degree)


class TestCost:
    COST = sequence_cost(ASKED, [(box.name,) for box in BOXES])

    def test_two_instances_halve_a_long_prompt_and_what_the_ring_hides_costs_nothing(self) -> None:
        shape = StepShape.prefill(60_000)
        one, two = self.COST.prompt_s(shape, 1), self.COST.prompt_s(shape, 2)
        assert two == pytest.approx(one / 2, rel=0.01)

    def test_a_slow_ring_is_waited_for(self) -> None:
        cluster = dataclasses.replace(ASKED.cluster, default_link=LinkSpeed(bytes_per_s=1e6, latency_s=0.0))
        cost = sequence_cost(dataclasses.replace(ASKED, cluster=cluster), [(b.name,) for b in BOXES])
        shape = StepShape.prefill(1000)
        sent_s = 3 * 250 * LONG.kv_bytes_per_token() / 1e6  # three of four parts pass each instance
        assert cost.prompt_s(shape, 4) == pytest.approx(
            sent_s + cost.instance.seconds(shape.part(4)), rel=0.01
        )

    def test_answers_pay_for_the_way_of_their_queries(self) -> None:
        shape = StepShape.decode(8, 4000)
        alone = self.COST.instance.seconds(shape.part(2))
        sent_s = LONG.layers * 2 * (1e-6 + 4 * LONG.width * 2 / 1e10)
        assert self.COST.answer_s(shape, 2) == pytest.approx(alone + sent_s)


class TestPlan:
    def test_the_plan_says_how_its_instances_work_together(self) -> None:
        plan = LoongServe(tensor=2).plan(ASKED)
        assert [replica.devices for replica in plan.replicas] == [("gpu-0", "gpu-1"), ("gpu-2", "gpu-3")]
        assert plan.to_dict()["elastic"] == {"degree": None, "scale_down": "proactive"}

    def test_groups_larger_than_the_cluster_and_heads_that_do_not_divide_are_refused(self) -> None:
        with pytest.raises(Infeasible, match="group of 5 devices") as caught:
            LoongServe(degree=5).plan(ASKED)
        assert "degree" in str(caught.value.hint)
        with pytest.raises(Infeasible, match="3 devices cannot split the 2 key/value heads"):
            LoongServe(tensor=3).plan(ASKED)
