"""Helix and HexGen: flows and unequal groups, against bounds, brute force and equal splits."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from evidence.plugin import Measure
from pentad.errors import Infeasible, MissingExtra
from pentad.execution.device import Cluster, DeviceProfile, LinkSpeed, MemoryTier
from pentad.resource.placement import PlacementProblem, Workload
from pentad.resource.placement.auto import AutoPlacement
from pentad.resource.placement.exact import ExactPlacement
from pentad.resource.placement.helix import Helix
from pentad.resource.placement.hexgen import HexGen
from pentad.resource.placement.layer_flow import SINK, SOURCE, LayerFlow, device_rates, solve
from pentad.resource.placement.uniform import UniformPipeline
from placement_samples import decoder, random_problem

SPEC = decoder(4)


def box(name: str, rate: float, share: float) -> DeviceProfile:
    """A device that reads so fast and holds such a share of the model."""
    memory = int(share * 2 * SPEC.parameters / 0.9)
    return DeviceProfile(
        name=name,
        kind="gpu",
        source="assumed",
        memory=(MemoryTier(name="main", capacity_bytes=memory, read_bytes_per_s=rate),),
        flops_per_s={"bf16": 100 * rate},
    )


def asked(*boxes: DeviceProfile, bytes_per_s: float = 1e10) -> PlacementProblem:
    cluster = Cluster(devices=boxes, default_link=LinkSpeed(bytes_per_s=bytes_per_s, latency_s=1e-5))
    load = Workload(prompt_tokens=512, new_tokens=16, concurrency=8)
    return PlacementProblem(spec=SPEC, cluster=cluster, workload=load)


class TestPaths:
    FLOW = LayerFlow(
        layers={"a": (0, 2), "b": (0, 2), "c": (2, 4), "d": (1, 4)},
        edges={
            (SOURCE, "a"): 3.0,
            (SOURCE, "b"): 2.0,
            ("a", "c"): 2.0,
            ("a", "d"): 1.0,
            ("b", "d"): 2.0,
            ("c", SINK): 2.0,
            ("d", SINK): 3.0,
        },
        bound_per_s=5.0,
    )

    @pytest.mark.row("par-helix", "mechanism")
    def test_a_flow_is_the_sum_of_its_paths(self) -> None:
        paths = self.FLOW.paths()
        assert sum(width for _, width in paths) == pytest.approx(self.FLOW.per_s) == pytest.approx(5.0)
        assert dict(paths) == {
            (("a", 0, 2), ("c", 2, 4)): 2.0,
            (("b", 0, 2), ("d", 2, 4)): 2.0,
            (("a", 0, 2), ("d", 2, 4)): 1.0,
        }

    def test_a_device_runs_only_the_layers_that_are_left(self) -> None:
        parts = {part for path, _ in self.FLOW.paths() for part in path if part[0] == "d"}
        assert parts == {("d", 2, 4)}, "it holds layer 1 as well"


class TestHelix:
    @pytest.mark.row("par-helix", "mechanism")
    def test_two_halves_and_a_whole_flow_side_by_side(self, capfd: pytest.CaptureFixture[str]) -> None:
        # The whole one holds everything; the two halves can only do it together.
        problem = asked(box("whole", 1e12, 2.0), box("one", 1e12, 0.9), box("two", 1e12, 0.9))
        pytest.importorskip("highspy", reason='pip install "pentad[milp]"')
        plan = Helix().plan(problem)
        assert capfd.readouterr().out == "", "plans as JSON go to the standard output"
        told = dict(plan.decisions[0].candidates)
        whole = device_rates(problem, "whole")[3]
        assert told["flow_per_s"] > 1.5 * whole, "the halves add at least half of what the whole one does"
        assert {name for replica in plan.replicas for name in replica.devices} == {"whole", "one", "two"}
        assert all(stage.total_bytes <= stage.usable_bytes for stage in plan.stages)

    def test_a_slow_link_narrows_the_flow_to_what_it_carries(self) -> None:
        pytest.importorskip("highspy", reason='pip install "pentad[milp]"')
        halves = box("one", 1e12, 0.9), box("two", 1e12, 0.9)
        each = SPEC.width * 2 * (512 + 16)
        flow = solve(asked(*halves, bytes_per_s=10 * each), degree=12, gap=0.0, seconds=30.0)
        assert flow.per_s == pytest.approx(10.0, rel=1e-4)
        assert flow.bound_per_s == pytest.approx(flow.per_s, rel=1e-4)

    def test_without_the_solver_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "highspy", None)
        with pytest.raises(MissingExtra, match="HiGHS") as caught:
            Helix().plan(asked(box("a", 1e12, 2.0), box("b", 1e12, 2.0)))
        assert "pentad[milp]" in str(caught.value.hint)

    def test_too_many_devices_are_refused(self) -> None:
        with pytest.raises(Infeasible, match="3 devices are too many"):
            Helix(devices=2).plan(asked(*(box(f"b{i}", 1e12, 2.0) for i in range(3))))

    @pytest.mark.row("par-helix", "effect")
    @pytest.mark.slow
    def test_the_plan_is_within_a_tenth_of_its_bound_and_flows_more_than_an_equal_split(
        self, measured: Measure
    ) -> None:
        """Seeds 0 to 7, of devices whose speeds differ by up to 20 and whose memory differs by up to 6."""
        pytest.importorskip("highspy", reason='pip install "pentad[milp]"')
        shares, gains = [], []
        for seed in range(8):
            problem = random_problem(seed, most_devices=5, requests=(4,))
            try:
                flow = solve(problem, degree=12, gap=0.02, seconds=300.0)
            except Infeasible:
                continue
            shares.append(flow.per_s / flow.bound_per_s)
            try:
                equal = UniformPipeline().plan(problem)
            except Infeasible:
                continue
            gains.append(Helix().plan(problem).throughput_tokens_per_s / equal.throughput_tokens_per_s)
        measured("clusters with a flow", len(shares), at_least=5)
        measured("least flow of its bound", min(shares), at_least=0.9)
        gains.sort()
        measured(
            "median predicted throughput over an equal split", gains[len(gains) // 2], at_least=1.3, unit="x"
        )


class TestHexGen:
    @pytest.mark.row("par-hexgen", "mechanism")
    def test_groups_of_unequal_size_serve_side_by_side(self) -> None:
        # Memory binds: the large one alone, the three small ones only together.
        boxes = box("large", 1e12, 2.0), *(box(f"small-{i}", 1e12, 0.6) for i in range(3))
        plan = HexGen(generations=20).plan(asked(*boxes))
        assert sorted(len(replica.devices) for replica in plan.replicas) in ([1, 2], [1, 3])
        assert HexGen(generations=20).plan(asked(*boxes)) == plan
        start = HexGen(generations=0).plan(asked(*boxes))
        assert plan.throughput_tokens_per_s >= start.throughput_tokens_per_s

    @pytest.mark.slow
    @pytest.mark.row("par-hexgen", "effect", claims=(2,))
    def test_it_is_within_5_percent_of_every_plan_there_is(self, measured: Measure) -> None:
        shares = []
        for seed in range(2000, 2012):
            problem = random_problem(seed, most_devices=3)
            try:
                best = ExactPlacement().plan(problem)
            except Infeasible:
                continue
            found = HexGen().plan(dataclasses.replace(problem, costs=type(problem.costs)()))
            shares.append(found.throughput_tokens_per_s / best.throughput_tokens_per_s)
        measured("clusters with a plan", len(shares), at_least=6)
        measured("worst share of the optimum", min(shares), at_least=0.95)


@pytest.mark.row("cost-parallel", "mechanism")
def test_the_cheapest_mix_of_pipeline_and_tensor_follows_links_and_prices() -> None:
    """A fast pair, dear by the hour, and a slow one, cheap: links decide between shares and stages."""
    dear = [dataclasses.replace(box(f"dear-{i}", 1e12, 0.9), price_per_hour=4.0) for i in range(2)]
    cheap = [dataclasses.replace(box(f"cheap-{i}", 5e11, 0.9), price_per_hour=0.5) for i in range(2)]
    near, far = asked(*dear, *cheap, bytes_per_s=1e11), asked(*dear, *cheap, bytes_per_s=2e7)
    for problem in (near, far):
        plan = AutoPlacement(goal="cost").plan(problem)
        assert {stage.device.partition("-")[0] for stage in plan.stages} == {"cheap"}
        # By hand: the plan costs its devices' price for its share of their time.
        per_s = plan.throughput_tokens_per_s / problem.workload.new_tokens
        assert plan.cost_per_request == pytest.approx(2 * 0.5 / 3600 / per_s, rel=1e-6)
    slow = AutoPlacement(goal="cost").plan(far)
    assert all(stage.split == "none" for stage in slow.stages), "collectives would wait for the link"
