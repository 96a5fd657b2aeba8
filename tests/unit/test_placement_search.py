"""The default planner against every plan there is, and the planners that are exact for a part of them."""

from __future__ import annotations

import dataclasses
import itertools
import random
import time

import pytest

from evidence.plugin import Measure
from pentad.errors import Infeasible
from pentad.execution.device import Cluster, DeviceProfile, Link, LinkSpeed, MemoryTier
from pentad.resource import profile
from pentad.resource.placement import PlacementProblem, Replica, Workload
from pentad.resource.placement.auto import AutoPlacement
from pentad.resource.placement.base import stage_on
from pentad.resource.placement.costs import CostBook
from pentad.resource.placement.edgeshard import EdgeShard
from pentad.resource.placement.exact import ExactPlacement
from pentad.resource.placement.galaxy import Galaxy
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.predict import predict
from pentad.resource.placement.uniform import UniformPipeline
from pentad.types import Objective
from placement_samples import decoder, random_problem


def compared(seeds: range, goal: str = "throughput") -> tuple[list[float], int]:
    """What the default reaches of the optimum on each cluster that can serve the load; how many cannot."""
    shares, impossible = [], 0
    for seed in seeds:
        problem = random_problem(seed)
        try:
            best = ExactPlacement(goal=goal).plan(problem)  # type: ignore[arg-type]
        except Infeasible:
            impossible += 1
            with pytest.raises(Infeasible):
                AutoPlacement(goal=goal).plan(problem)  # type: ignore[arg-type]
            continue
        # With books of its own, so that nothing is taken over from the judge.
        found = AutoPlacement(goal=goal).plan(dataclasses.replace(problem, costs=CostBook()))  # type: ignore[arg-type]
        if goal == "cost":
            assert best.cost_per_request
            assert found.cost_per_request
            shares.append(best.cost_per_request / found.cost_per_request)
        else:
            shares.append(found.throughput_tokens_per_s / best.throughput_tokens_per_s)
    return shares, impossible


def test_the_default_is_within_5_percent_of_the_optimum_on_a_few_clusters() -> None:
    shares, _ = compared(range(1000, 1012))
    assert shares
    assert min(shares) >= 0.95


@pytest.mark.slow
@pytest.mark.row("par-hexgen", "effect", claims=(2,))
def test_the_default_is_within_5_percent_of_the_optimum_on_200_clusters(measured: Measure) -> None:
    shares, impossible = compared(range(200))
    assert len(shares) + impossible == 200
    assert impossible < 40
    measured("worst share of the optimum", min(shares), at_least=0.95)
    measured("clusters with a plan", len(shares), at_least=160)


@pytest.mark.slow
@pytest.mark.row("cost-parallel", "effect", claims=(1,))
def test_the_cheapest_plan_is_within_5_percent_of_exhaustive_search(measured: Measure) -> None:
    shares, _ = compared(range(300, 360), goal="cost")
    measured("worst share of the least cost", min(shares), at_least=0.95)


def fleet(count: int) -> Cluster:
    """Nodes of one to eight GPUs of three makes on fast links, joined by 10 gigabit Ethernet."""
    draw = random.Random(3)
    devices: list[DeviceProfile] = []
    links: list[Link] = []
    while len(devices) < count:
        kind = profile.find(draw.choice(["h100-sxm", "a100-sxm-80gb", "rtx-4090"]))
        size = min(draw.choice([1, 2, 4, 8]), count - len(devices))
        node = [dataclasses.replace(kind, name=f"g{len(devices) + i}") for i in range(size)]
        devices += node
        rate = 2e10 if kind.name == "rtx-4090" else 1e11
        links += [
            Link(source=a.name, target=b.name, bytes_per_s=rate, latency_s=1e-5)
            for a, b in itertools.permutations(node, 2)
        ]
    speed = LinkSpeed(bytes_per_s=1.25e9, latency_s=1e-4)
    return Cluster(devices=tuple(devices), links=tuple(links), default_link=speed)


@pytest.mark.slow
def test_a_thousand_devices_are_planned_in_ten_seconds(measured: Measure) -> None:
    load = Workload(prompt_tokens=1024, new_tokens=256, concurrency=4000)
    spec = decoder(80, width=8192, heads=64, kv_heads=8)
    problem = PlacementProblem(spec=spec, cluster=fleet(1000), workload=load)
    begun = time.process_time()
    found = AutoPlacement().plan(problem)
    measured("seconds for 1,000 devices", time.process_time() - begun, at_most=10.0, unit="s")
    assert len({stage.device for stage in found.stages}) > 800


def mixed(bytes_per_s: float) -> PlacementProblem:
    """A 7B model on boxes of unequal speed and memory, one request at a time."""
    orin = profile.find("jetson-orin-nano-super-8gb")
    boxes = [
        dataclasses.replace(
            orin,
            name=f"box-{i}",
            memory=(dataclasses.replace(orin.memory[0], capacity_bytes=gib * 2**30, read_bytes_per_s=rate),),
        )
        for i, (gib, rate) in enumerate([(8, 1e11), (16, 1e11), (32, 2e11), (8, 6e10)])
    ]
    cluster = Cluster(devices=tuple(boxes), default_link=LinkSpeed(bytes_per_s=bytes_per_s, latency_s=1e-3))
    load = Workload(prompt_tokens=32, new_tokens=96)
    return PlacementProblem(
        spec=decoder(32, width=4096, heads=32, kv_heads=32), cluster=cluster, workload=load
    )


class TestEdgeShard:
    @pytest.mark.thorough
    @pytest.mark.row("cm-edgeshard", "effect", claims=(1,))
    def test_it_is_as_soon_as_the_soonest_of_all_pipelines(self, measured: Measure) -> None:
        ratios = []
        for seed in range(12):
            problem = random_problem(seed, most_devices=5, requests=(1,))
            best = min((predict(problem, each).completion_s for each in pipelines(problem)), default=None)
            if best is None:
                continue
            plan = EdgeShard().plan(problem)
            took = plan.ttft_s + (problem.workload.new_tokens - 1) * plan.inter_token_s
            ratios.append(took / best)
        measured("clusters with a plan", len(ratios), at_least=6)
        measured("slowest against brute force", max(ratios), at_most=1 + 1e-9, unit="x")

    @pytest.mark.row("cm-edgeshard", "effect", claims=(2,))
    @pytest.mark.parametrize("mbit_per_s", [1, 10, 50])
    def test_it_beats_an_equal_split_by_half_over_slow_links(
        self, mbit_per_s: int, measured: Measure
    ) -> None:
        problem = mixed(mbit_per_s * 125e3)
        even = dataclasses.replace(problem, form=dataclasses.replace(problem.form, weight_bits=8))
        equal, own = UniformPipeline().plan(even), EdgeShard().plan(even)
        ratio = (equal.ttft_s + 95 * equal.inter_token_s) / (own.ttft_s + 95 * own.inter_token_s)
        measured(f"equal split over it at {mbit_per_s} Mbit/s", ratio, at_least=1.5, unit="x")

    @pytest.mark.row("cm-edgeshard", "mechanism")
    def test_the_source_holds_the_first_layer(self) -> None:
        problem = mixed(6e6)
        found = EdgeShard(source="box-3").plan(problem)
        assert found.stages[0].device == "box-3"
        assert EdgeShard().plan(problem).stages[0].device != "box-3"
        with pytest.raises(Infeasible, match="no device 'box-9'"):
            EdgeShard(source="box-9").plan(problem)

    def test_a_full_pipeline_is_balanced_where_one_request_is_not(self) -> None:
        # Long prompts: reading the weights once more for each part of the sequences counts for little.
        load = Workload(prompt_tokens=4096, new_tokens=4, concurrency=8)
        many = dataclasses.replace(mixed(1.25e9), workload=load)
        fast, soon = EdgeShard(goal="throughput").plan(many), EdgeShard().plan(many)
        assert fast.throughput_tokens_per_s >= soon.throughput_tokens_per_s
        assert len(fast.stages) > len(soon.stages)


def pipelines(problem: PlacementProblem) -> list[Replica]:
    """Every pipeline of single devices that fits and whose links exist."""
    layers, found = problem.spec.layers, []
    for size in range(1, len(problem.cluster.devices) + 1):
        for devices in itertools.permutations(problem.cluster.devices, size):
            for inner in itertools.combinations(range(1, layers), size - 1):
                ends = (*inner, layers)
                stages = tuple(
                    stage_on(problem, device, first, end)
                    for device, first, end in zip(devices, (0, *ends), ends, strict=False)
                )
                if all(stage.total_bytes <= stage.usable_bytes for stage in stages):
                    found.append(Replica(stages=stages))
    return found


class TestGalaxy:
    @pytest.mark.row("par-galaxy", "effect", claims=(1,))
    def test_shares_by_speed_beat_equal_ones_on_a_home_network(self, measured: Measure) -> None:
        # Two Jetson Nanos, 472 GFLOP/s in half precision, one of them at a quarter of its clock.
        kind = profile.find("jetson-orin-nano-super-8gb")
        boxes = [
            dataclasses.replace(
                kind,
                name=f"box-{i}",
                memory=(dataclasses.replace(kind.memory[0], read_bytes_per_s=25.6e9),),
                flops_per_s={"f16": clock * 472e9},
            )
            for i, clock in enumerate([1.0, 0.25])
        ]
        # 125 Mbit/s, as in the paper; prompts alone are computed, as its encoders do.
        cluster = Cluster(devices=tuple(boxes), default_link=LinkSpeed(bytes_per_s=125e6 / 8, latency_s=5e-4))
        load = Workload(prompt_tokens=284, new_tokens=1)
        problem = PlacementProblem(
            spec=decoder(48, width=1600, heads=25, kv_heads=25), cluster=cluster, workload=load
        )
        own = Galaxy().plan(problem)
        # 25 heads do not divide evenly: 13 and 12 are as equal as it gets.
        members = [(box, heads / 25) for box, heads in zip(boxes, (13, 12), strict=True)]
        equal = predict(problem, Replica(stages=group_on(problem, members, 0, 48, split="sequence")))
        measured("latency below equal shares", 1 - own.ttft_s / equal.ttft_s, at_least=0.25)
        assert own.stages[0].share > 0.6

    @pytest.mark.row("par-galaxy", "mechanism")
    def test_what_a_device_cannot_hold_goes_to_the_others(self) -> None:
        problem = mixed(1.25e9)
        found = Galaxy().plan(problem)
        assert sum(stage.share for stage in found.stages) == pytest.approx(1)
        assert all(stage.total_bytes <= stage.usable_bytes for stage in found.stages)
        small = dataclasses.replace(problem, form=dataclasses.replace(problem.form, weight_bits=64))
        with pytest.raises(Infeasible) as caught:
            Galaxy().plan(small)
        assert caught.value.hint


def fast_and_frugal() -> PlacementProblem:
    """Two devices that hold a model: one ten times as fast at thirty times the power."""
    boxes = tuple(
        dataclasses.replace(
            profile.find("jetson-orin-nano-super-8gb"),
            name=name,
            memory=(MemoryTier(name="main", capacity_bytes=2**33, read_bytes_per_s=rate),),
            flops_per_s={"f16": 100 * rate},
            power_w=watts,
        )
        for name, rate, watts in (("fast", 1e12, 450.0), ("frugal", 1e11, 15.0))
    )
    return PlacementProblem(spec=decoder(6), cluster=Cluster(devices=boxes), workload=Workload(concurrency=2))


class TestGoals:
    def test_each_goal_is_best_at_what_it_counts(self) -> None:
        problem = random_problem(11)
        plans = {goal: AutoPlacement(goal=goal).plan(problem) for goal in ("throughput", "cost", "energy")}  # type: ignore[arg-type]
        assert plans["throughput"].throughput_tokens_per_s == max(
            p.throughput_tokens_per_s for p in plans.values()
        )
        assert plans["cost"].cost_per_request == min(p.cost_per_request or 0 for p in plans.values())
        assert plans["energy"].energy_j_per_request == min(
            p.energy_j_per_request or 0 for p in plans.values()
        )

    @pytest.mark.row("ch-energy", "mechanism")
    def test_a_plan_under_a_limit_of_energy_differs_and_keeps_it(self) -> None:
        problem = fast_and_frugal()
        free = AutoPlacement().plan(problem)
        frugal = AutoPlacement(goal="energy").plan(problem)
        assert free.energy_j_per_request
        assert frugal.energy_j_per_request
        allowed = (free.energy_j_per_request + frugal.energy_j_per_request) / 2
        kept = AutoPlacement().plan(dataclasses.replace(problem, objective=Objective(max_energy_j=allowed)))
        assert kept.energy_j_per_request
        assert kept.energy_j_per_request <= allowed
        assert kept.replicas != free.replicas
        assert kept.throughput_tokens_per_s <= free.throughput_tokens_per_s

    def test_a_goal_that_cannot_be_counted_names_what_is_missing(self) -> None:
        problem = random_problem(11)
        bare = tuple(dataclasses.replace(device, power_w=None) for device in problem.cluster.devices)
        without = dataclasses.replace(problem.cluster, devices=bare)
        with pytest.raises(Infeasible, match="needs power_w, which device 'd0'"):
            AutoPlacement(goal="energy").plan(dataclasses.replace(problem, cluster=without))
