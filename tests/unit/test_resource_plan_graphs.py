"""Plans as graphs: the shapes that the survey's planners make are expressed, checked and costed."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence

import pytest
from resource_samples import GPU, LLAMA_1B

from pentad.errors import Incompatible, Infeasible
from pentad.execution.device import Cluster, DeviceProfile, Link, MemoryTier
from pentad.resource.placement import Handoff, Plan, Replica, Workload, plan
from pentad.resource.placement.base import PlacementProblem, replica_load, stage_on
from pentad.resource.placement.finish import finish
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.plan import Stage
from pentad.resource.simulator import Fleet, Policies, SimulationOptions, poisson, simulate_fleet
from pentad.types import Objective

LOAD = Workload(prompt_tokens=512, new_tokens=128, concurrency=8)
LAYERS = LLAMA_1B.layers


def device(name: str, scale: float = 1.0, gib: float = 16) -> DeviceProfile:
    memory = (MemoryTier(name="hbm", capacity_bytes=int(gib * 2**30), read_bytes_per_s=scale * 1e12),)
    return dataclasses.replace(GPU, name=name, memory=memory, flops_per_s={"bf16": scale * 100e12})


def mesh(
    *devices: DeviceProfile, bytes_per_s: float = 1e11, latency_s: float = 1e-6, **changes: object
) -> PlacementProblem:
    links = tuple(
        Link(source=a.name, target=b.name, bytes_per_s=bytes_per_s, latency_s=latency_s)
        for a, b in itertools.permutations(devices, 2)
    )
    problem = PlacementProblem(spec=LLAMA_1B, cluster=Cluster(devices=devices, links=links), workload=LOAD)
    return dataclasses.replace(problem, **changes)  # type: ignore[arg-type]


def group(
    problem: PlacementProblem,
    members: Sequence[tuple[str, float]],
    first: int,
    end: int,
    split: str = "tensor",
) -> tuple[Stage, ...]:
    pairs = [(problem.cluster.device(name), share) for name, share in members]
    return group_on(problem, pairs, first, end, split=split)  # type: ignore[arg-type]


A, B, C, D, E = (device(name) for name in "abcde")


def hexgen(problem: PlacementProblem) -> Plan:
    """Asymmetric: three devices and a single one in one pipeline, one device alone in the other."""
    half = replica_load(problem, 0.75)
    wide = (*group(half, [("a", 0.5), ("b", 0.5)], 0, 12), *group(half, [("c", 1.0)], 12, LAYERS))
    alone = (stage_on(replica_load(problem, 0.25), problem.cluster.device("d"), 0, LAYERS),)
    return finish("hand", problem, Replica(stages=wide, weight=0.75), Replica(stages=alone, weight=0.25))


def helix(problem: PlacementProblem) -> Plan:
    """Two paths of a flow that share their second half."""
    paths = []
    for name, weight in (("a", 0.6), ("b", 0.4)):
        load = replica_load(problem, weight)
        first = stage_on(load, problem.cluster.device(name), 0, 8)
        second = stage_on(load, problem.cluster.device("c"), 8, LAYERS)
        paths.append(Replica(stages=(first, second), weight=weight))
    return finish("hand", problem, *paths)


def distserve(problem: PlacementProblem, *handoffs: Handoff) -> Plan:
    """Two devices for prompts; answers on one of two others, which is a pair."""
    parts = []
    for name in "ab":
        load = replica_load(problem, 0.5, "prefill")
        stages = (stage_on(load, problem.cluster.device(name), 0, LAYERS),)
        parts.append(Replica(stages=stages, weight=0.5, role="prefill"))
    decode = group(problem, [("c", 0.5), ("d", 0.5)], 0, LAYERS)
    parts.append(Replica(stages=decode, weight=1.0, role="decode"))
    return finish("hand", problem, *parts, handoffs=handoffs)


def galaxy(problem: PlacementProblem, split: str = "sequence") -> Plan:
    """One group whose shares follow the devices' speeds."""
    stages = group(problem, [("a", 0.5), ("b", 0.25), ("c", 0.25)], 0, LAYERS, split)
    return finish("hand", problem, Replica(stages=stages))


@pytest.mark.parametrize("shape", [hexgen, helix, distserve, galaxy])
def test_each_shape_is_a_plan_with_its_memory_times_and_decision(shape: object) -> None:
    problem = mesh(A, B, C, D, E)
    found = shape(problem)  # type: ignore[operator]
    assert found.ttft_s > 0
    assert found.inter_token_s > 0
    assert found.throughput_tokens_per_s > 0
    (decision,) = (one for one in found.decisions if one.subject == "placement")
    assert "a" in decision.chosen
    data = json.loads(json.dumps(found.to_dict()))
    assert len(data["stages"]) == len(found.stages)
    for replica in found.replicas:
        assert replica.groups[-1][0].end_layer == LAYERS


def test_a_group_holds_each_weight_once_and_computes_it_in_parallel() -> None:
    problem = mesh(A, B, C, D)
    whole = stage_on(problem, A, 0, LAYERS)
    halves = group(problem, [("a", 0.5), ("b", 0.5)], 0, LAYERS)
    assert sum(stage.weight_bytes for stage in halves) == pytest.approx(whole.weight_bytes, abs=2)
    assert sum(stage.kv_bytes for stage in halves) == whole.kv_bytes
    assert sum(stage.activation_bytes for stage in halves) > whole.activation_bytes, (
        "the stream is held twice"
    )
    split = group(problem, [("a", 0.5), ("b", 0.5)], 0, LAYERS, "sequence")
    assert sum(stage.activation_bytes for stage in split) == pytest.approx(whole.activation_bytes, abs=2)
    one, four = (
        plan("single", LLAMA_1B, Cluster(devices=(A,)), LOAD),
        plan("tensor", LLAMA_1B, problem.cluster, LOAD),
    )
    assert 3 < one.inter_token_s / four.inter_token_s < 4
    assert 3 < one.ttft_s / four.ttft_s < 4


def test_collectives_cost_two_rings_a_layer_and_bind_where_links_are_slow() -> None:
    lone = plan("single", LLAMA_1B, Cluster(devices=(A,)), LOAD)
    slow = plan("tensor", LLAMA_1B, mesh(A, B, latency_s=1e-3).cluster, LOAD)
    rings_s = LAYERS * 2 * 2 * 1e-3  # two collectives, each a round of two steps
    assert slow.inter_token_s == pytest.approx(lone.inter_token_s / 2 + rings_s, rel=0.03)
    assert slow.binding == "collectives on 'a'"


def test_shares_by_speed_beat_equal_ones_on_unequal_devices() -> None:
    problem = mesh(device("a", 2.0), B, C)
    uneven = galaxy(problem)
    shares = [("a", 1 / 2), ("b", 1 / 4), ("c", 1 / 4)]
    pairs = [("a", 1 / 4), ("b", 1 / 2), ("c", 1 / 4)]
    assert [stage.share for stage in uneven.stages] == [share for _, share in shares]
    worse = finish("hand", problem, Replica(stages=group(problem, pairs, 0, LAYERS, "sequence")))
    assert uneven.inter_token_s < 0.6 * worse.inter_token_s


def test_devices_of_several_paths_hold_equal_layers_once() -> None:
    problem = mesh(A, B, C)
    found = helix(problem)
    shared = [stage for stage in found.stages if stage.device == "c"]
    each = shared[0].weight_bytes
    tight = mesh(A, B, device("c", gib=1.2 * each / 2**30 / 0.9))
    assert helix(tight).replicas[0].weight == 0.6, "two copies would not fit"
    with pytest.raises(Infeasible, match=r"device 'c' has .* its 2 stages need"):
        helix(mesh(A, B, device("c", gib=1.01 * each / 2**30 / 0.9)))


class TestPhases:
    def test_prompts_do_not_wait_for_others_answers_and_keys_and_values_are_moved(self) -> None:
        problem = mesh(A, B, C, D, workload=dataclasses.replace(LOAD, concurrency=64))
        mixed = plan("data-parallel", LLAMA_1B, problem.cluster, problem.workload)
        apart = plan("phases", LLAMA_1B, problem.cluster, problem.workload)
        assert {replica.role for replica in apart.replicas} == {"prefill", "decode"}
        assert apart.ttft_s < mixed.ttft_s
        assert sum(handoff.weight for handoff in apart.handoffs) == pytest.approx(1)
        quick, slow = (distserve(mesh(A, B, C, D, bytes_per_s=rate)) for rate in (1e11, 1e8))
        moved_s = 512 * LLAMA_1B.kv_bytes_per_token() / 1e8
        deadline = quick.ttft_s + 127 * quick.inter_token_s + moved_s
        problem = mesh(A, B, C, D, bytes_per_s=1e8, objective=Objective(deadline_s=deadline * 0.9))
        with pytest.raises(Infeasible, match="predicted deadline_s"):
            distserve(problem)
        assert slow.throughput_tokens_per_s < quick.throughput_tokens_per_s

    def test_a_prefill_replica_needs_little_memory_for_keys_and_values(self) -> None:
        found = distserve(mesh(A, B, C, D, workload=dataclasses.replace(LOAD, concurrency=64)))
        prefill, decode = found.replicas[0].stages[0], found.replicas[2].stages
        assert prefill.kv_bytes < 0.1 * sum(stage.kv_bytes for stage in decode)

    def test_handoffs_say_who_hands_to_whom(self) -> None:
        problem = mesh(A, B, C, D)
        given = (Handoff(source=0, target=2, weight=0.5), Handoff(source=1, target=2, weight=0.5))
        assert distserve(problem, *given).handoffs == given == distserve(problem).handoffs
        with pytest.raises(ValueError, match=r"replica 0 has the weight 0\.5, its handoffs 1"):
            distserve(problem, Handoff(source=0, target=2, weight=1.0))

    def test_the_faster_devices_compute_the_prompts(self) -> None:
        problem = mesh(device("slow", 0.5), device("fast", 4.0), device("mid", 1.0))
        found = plan("phases:prefill_devices=1", LLAMA_1B, problem.cluster, LOAD)
        assert found.replicas[0].devices == ("fast",)
        with pytest.raises(Infeasible, match="9 devices for prompts"):
            plan("phases:prefill_devices=9", LLAMA_1B, problem.cluster, LOAD)

    def test_a_missing_link_between_phases_is_named(self) -> None:
        problem = mesh(A, B)
        alone = dataclasses.replace(problem, cluster=Cluster(devices=(A, B)))
        with pytest.raises(Infeasible, match="no link from device 'a' to 'b'"):
            plan("phases", LLAMA_1B, alone.cluster, LOAD)

    def test_a_scaler_that_would_stop_a_phase_is_refused_with_what_is_possible(self) -> None:
        problem = mesh(A, B)
        found = plan("phases", LLAMA_1B, problem.cluster, LOAD)
        fleet = Fleet(spec=LLAMA_1B, cluster=problem.cluster, plan=found)
        with pytest.raises(Incompatible, match="choose a --strategy whose replicas compute both phases"):
            simulate_fleet(
                poisson(1, rate_per_s=1.0, prompt_tokens=(64, 64), output_tokens=(4, 4)),
                fleet,
                Policies.of(scaler="queue"),
            )


class TestWhatIsNoPlan:
    problem = mesh(A, B, C)

    def replica(self, *stages: Stage, weight: float = 1.0, role: str = "both") -> Replica:
        return Replica(stages=stages, weight=weight, role=role)  # type: ignore[arg-type]

    def test_layers_shares_and_splits_must_add_up(self) -> None:
        first, last = stage_on(self.problem, A, 0, 8), stage_on(self.problem, B, 9, LAYERS)
        with pytest.raises(ValueError, match="begins at layer 9, the last one ended at 8"):
            self.replica(first, last)
        half, third = (group(self.problem, [("a", s), ("b", 1 - s)], 0, LAYERS)[0] for s in (0.5, 0.25))
        with pytest.raises(ValueError, match="do not add up to 1"):
            self.replica(half, dataclasses.replace(third, device="b"))
        with pytest.raises(ValueError, match="split in two ways"):
            self.replica(half, dataclasses.replace(half, device="b", split="sequence"))
        with pytest.raises(ValueError, match="runs nothing"):
            dataclasses.replace(first, end_layer=0)
        with pytest.raises(ValueError, match="is no part of a stage"):
            dataclasses.replace(first, share=0.5)
        with pytest.raises(ValueError, match=f"ends at layer 8 of {LAYERS}"):
            finish("hand", self.problem, self.replica(first))

    def test_weights_and_roles_must_serve_every_request(self) -> None:
        whole = stage_on(self.problem, A, 0, LAYERS)
        with pytest.raises(ValueError, match=r"add up to 0\.5"):
            finish("hand", self.problem, self.replica(whole, weight=0.5))
        with pytest.raises(ValueError, match="with roles prefill do not serve whole requests"):
            finish("hand", self.problem, self.replica(whole, role="prefill"))

    def test_a_share_must_be_whole_heads(self) -> None:
        stages = group(self.problem, [("a", 0.51), ("b", 0.49)], 0, LAYERS)
        with pytest.raises(Infeasible, match=r"16\.32 of 32 heads .* multiples of 1/32"):
            finish("hand", self.problem, self.replica(*stages))

    def test_a_group_needs_links_around(self) -> None:
        one_way = Cluster(
            devices=(A, B), links=(Link(source="a", target="b", bytes_per_s=1e9, latency_s=1e-3),)
        )
        with pytest.raises(Infeasible, match="no link from device 'b' to 'a'"):
            plan("tensor", LLAMA_1B, one_way, LOAD)
        with pytest.raises(Infeasible, match=r"3 devices do not divide the 8 key/value heads .* use 1 or 2"):
            plan("tensor", LLAMA_1B, self.problem.cluster, LOAD)


@pytest.mark.parametrize("shape", [hexgen, helix, galaxy])
def test_a_graph_runs_in_the_simulator_with_the_predicted_pace(shape: object) -> None:
    problem = mesh(A, B, C, D, workload=Workload(prompt_tokens=64, new_tokens=20, concurrency=1))
    found = shape(problem)  # type: ignore[operator]
    fleet = Fleet(spec=LLAMA_1B, cluster=problem.cluster, plan=found)
    load = poisson(4, rate_per_s=0.5, prompt_tokens=(64, 64), output_tokens=(20, 20), seed=1)
    options = SimulationOptions(kv_blocks=100)
    report = simulate_fleet(load, fleet, Policies.of(offload="flow"), options=options)
    assert len(report.total.completed) == 4
    assert report.total.inter_token.p50 <= found.inter_token_s * 1.05
    paces = [engine.report.inter_token.p50 for engine in report.engines if engine.given]
    assert max(paces) == pytest.approx(found.inter_token_s, rel=0.05)
