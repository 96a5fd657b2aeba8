"""Dense products on one device and attention on others: what each holds, what is sent, and who waits."""

from __future__ import annotations

import dataclasses

import pytest
from resource_samples import GPU, TINY

from pentad.errors import Infeasible
from pentad.execution.device import Cluster, Link, LinkSpeed, MemoryTier
from pentad.execution.scheduling import EngineLimits
from pentad.resource.placement import PlacementProblem, Replica, Stage, Workload
from pentad.resource.placement.complementary import Complementary
from pentad.resource.placement.fastdecode import FastDecode
from pentad.resource.placement.finish import finish
from pentad.resource.placement.operator_split import operator_cost, split_stage
from pentad.resource.placement.plan import AttentionPart
from pentad.resource.placement.single import SingleDevice
from pentad.resource.simulator import Fleet, Policies, SimulationOptions, poisson, simulate_fleet
from pentad.resource.step_shape import StepShape

CPUS = tuple(
    dataclasses.replace(
        GPU,
        name=f"cpu-{i}",
        kind="cpu",
        memory=(MemoryTier(name="main", capacity_bytes=2**36, read_bytes_per_s=rate),),
        flops_per_s={"bf16": 4e12},
        price_per_hour=0.5,
    )
    for i, rate in enumerate((1e11, 3e11))
)
ACCELERATOR = dataclasses.replace(GPU, price_per_hour=1.0)
RATE = 1e9
ASKED = PlacementProblem(
    spec=TINY,
    cluster=Cluster(devices=(*CPUS, ACCELERATOR), default_link=LinkSpeed(bytes_per_s=RATE, latency_s=1e-6)),
    workload=Workload(prompt_tokens=100, new_tokens=40, concurrency=8),
)


@pytest.mark.row("cost-fastdecode", "mechanism")
class TestPlan:
    def test_processors_share_keys_and_values_by_their_rates(
        self,
    ) -> None:
        plan = FastDecode().plan(ASKED)
        (stage,) = plan.stages
        assert (stage.device, stage.kv_bytes, stage.batches) == ("gpu", 0, 2)
        assert {part.device: part.share for part in stage.attention} == pytest.approx(
            {"cpu-0": 0.25, "cpu-1": 0.75}
        )
        slots = 8 * ASKED.workload.slots_per_sequence
        assert sum(part.kv_bytes for part in stage.attention) == slots * TINY.kv_bytes_per_token()
        assert plan.replicas[0].devices == ("gpu", "cpu-1", "cpu-0")
        # Every device counts in the price of a request: by hand, two an hour for its share.
        per_s = plan.throughput_tokens_per_s / ASKED.workload.new_tokens
        assert plan.cost_per_request == pytest.approx(2.0 / 3600 / per_s)

    def test_one_device_or_too_little_room_is_refused_with_a_remedy(self) -> None:
        alone = dataclasses.replace(ASKED, cluster=Cluster(devices=(GPU,)))
        with pytest.raises(Infeasible, match="second device") as caught:
            FastDecode().plan(alone)
        assert "--strategy single" in str(caught.value.hint)
        (tier,) = CPUS[0].memory
        tight = (dataclasses.replace(tier, capacity_bytes=10_000, read_bytes_per_s=3e11),)
        small = Cluster(
            devices=(GPU, dataclasses.replace(CPUS[0], memory=tight)),
            default_link=ASKED.cluster.default_link,
        )
        with pytest.raises(Infeasible, match="for its share of keys and values") as caught:
            FastDecode().plan(dataclasses.replace(ASKED, cluster=small))
        assert "--concurrency" in str(caught.value.hint)

    def test_a_stage_whose_attention_is_elsewhere_holds_no_keys_and_values(self) -> None:
        (stage,) = FastDecode().plan(ASKED).stages
        with pytest.raises(ValueError, match="leaves attention to others"):
            dataclasses.replace(stage, kv_bytes=5)
        half = (AttentionPart(device="cpu-0", share=0.5, kv_bytes=0, usable_bytes=1),)
        with pytest.raises(ValueError, match="do not add up to 1"):
            dataclasses.replace(stage, attention=half)


def split(batches: int = 1, *, rate: float = RATE) -> tuple[PlacementProblem, Stage]:
    link = LinkSpeed(bytes_per_s=rate, latency_s=1e-6)
    asked = dataclasses.replace(ASKED, cluster=dataclasses.replace(ASKED.cluster, default_link=link))
    return asked, split_stage(asked, "gpu", ["cpu-0", "cpu-1"], batches=batches)


@pytest.mark.row("het-inter-accel", "mechanism", claims=(2,))
class TestTransfers:
    def test_answers_send_queries_keys_and_values_and_get_results(self) -> None:
        cost = operator_cost(*split())
        moved = [cost.transfers(StepShape.decode(6, 50), place) for place in (0, 1)]
        query = TINY.layers * TINY.heads * TINY.head_dim * 2
        assert sum(each.sent_bytes for each in moved) == 6 * (query + TINY.kv_bytes_per_token())
        assert sum(each.back_bytes for each in moved) == 6 * query
        assert moved[1].sent_bytes == pytest.approx(3 * moved[0].sent_bytes), "by their shares"

    def test_a_piece_of_a_prompt_sends_its_own_keys_and_values_and_fetches_the_earlier_ones(self) -> None:
        cost = operator_cost(*split())
        moved = [cost.transfers(StepShape.prefill(64, cached=128), place) for place in (0, 1)]
        assert sum(each.sent_bytes for each in moved) == 64 * TINY.kv_bytes_per_token()
        assert sum(each.back_bytes for each in moved) == 128 * TINY.kv_bytes_per_token()

    def test_every_byte_is_in_the_time_of_a_step_and_so_is_every_wait_for_the_link(self) -> None:
        shape = StepShape.decode(6, 50)
        slow, fast = (operator_cost(*split(rate=rate)) for rate in (1e6, 1e15))
        moved = slow.transfers(shape, 1)
        sent_s = (moved.sent_bytes + moved.back_bytes) / 1e6
        # The second processor has three quarters, so its transfers are the last to end.
        attended_s = 0.75 * fast.attention[1].terms(shape)[1]
        waits_s = TINY.layers * 2e-6
        dense_s = slow.sides(shape)[0]
        assert slow.seconds(shape) == pytest.approx(dense_s + attended_s + sent_s + waits_s, rel=1e-6)

    def test_a_missing_link_is_named(self) -> None:
        asked, stage = split()
        links = tuple(Link(source="gpu", target=f"cpu-{i}", bytes_per_s=RATE, latency_s=0.0) for i in (0, 1))
        one_way = dataclasses.replace(asked.cluster, links=links, default_link=None)
        with pytest.raises(Infeasible, match="no link from device 'cpu-0' to 'gpu'"):
            operator_cost(dataclasses.replace(asked, cluster=one_way), stage)


@pytest.mark.row("cost-fastdecode", "mechanism")
def test_two_batches_that_take_turns_cost_twice_the_longer_side_of_half_the_sequences() -> None:
    shape = StepShape.decode(8, 500)
    alone, turns = operator_cost(*split(1)), operator_cost(*split(2))
    assert alone.seconds(shape) == pytest.approx(sum(alone.sides(shape)))
    assert turns.seconds(shape) == pytest.approx(2 * max(turns.sides(StepShape.decode(4, 500))))
    one = StepShape.decode(1, 500)
    assert turns.seconds(one) == alone.seconds(one), "one sequence cannot take turns with itself"


@pytest.mark.row("cost-fastdecode", "mechanism")
@pytest.mark.row("het-inter-accel", "mechanism")
@pytest.mark.parametrize("strategy", [FastDecode(), Complementary()], ids=lambda s: s.name)
def test_a_plan_runs_in_the_simulator_and_gives_the_tokens_of_one_device(
    strategy: FastDecode | Complementary,
) -> None:
    trace = poisson(20, rate_per_s=50.0, prompt_tokens=(20, 200), output_tokens=(5, 30), seed=4)
    options = SimulationOptions(limits=EngineLimits(max_sequences=16))
    runs = [
        simulate_fleet(
            trace,
            Fleet(spec=TINY, cluster=ASKED.cluster, plan=planner.plan(ASKED)),
            Policies.of(offload="fastest"),
            options=options,
        )
        for planner in (strategy, SingleDevice())
    ]
    assert [r.tokens for r in runs[0].total.records] == [r.tokens for r in runs[1].total.records]


@pytest.mark.row("het-inter-accel", "mechanism")
def test_of_layers_phases_and_operators_the_one_that_serves_most_is_kept() -> None:
    plan = Complementary().plan(ASKED)
    told = dict(plan.decisions[0].candidates)
    kinds = {what: told[what] for what in ("layers", "phases", "operators")}
    assert plan.throughput_tokens_per_s == pytest.approx(max(kinds.values()), rel=1e-6)
    by_hand = max(
        _throughput(dense, helpers, batches)
        for dense, helpers in (
            ("gpu", ("cpu-0",)),
            ("gpu", ("cpu-1",)),
            ("gpu", ("cpu-0", "cpu-1")),
            ("cpu-0", ("gpu",)),
            ("cpu-0", ("cpu-1",)),
            ("cpu-0", ("gpu", "cpu-1")),
            ("cpu-1", ("gpu",)),
            ("cpu-1", ("cpu-0",)),
            ("cpu-1", ("gpu", "cpu-0")),
        )
        for batches in (1, 2)
    )
    assert kinds["operators"] == pytest.approx(by_hand, rel=1e-4)


def _throughput(dense: str, helpers: tuple[str, ...], batches: int) -> float:
    stage = split_stage(ASKED, dense, helpers, batches=batches)
    return finish("hand", ASKED, Replica(stages=(stage,))).throughput_tokens_per_s
