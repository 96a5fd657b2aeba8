"""Limits that every plan keeps: memory, latencies, cost and energy, and which devices do what."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict

import pytest

from evidence.plugin import Measure
from pentad.errors import Infeasible, UnknownName
from pentad.resource.placement import PlacementProblem, Plan, Replica
from pentad.resource.placement.base import replica_load
from pentad.resource.placement.constrained import Constrained
from pentad.resource.placement.finish import finish
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.predict import predict_all
from pentad.types import Objective
from placement_samples import random_problem


def random_replicas(problem: PlacementProblem, draw: random.Random) -> list[Replica]:
    """One or two pipelines of groups of one or two devices, which may share some; with random layers."""
    count = draw.choice((1, 1, 2))
    replicas = []
    for _ in range(count):
        names = [device.name for device in problem.cluster.devices]
        draw.shuffle(names)
        groups: list[list[str]] = []
        while names and len(groups) < 3:
            size = draw.choice((1, 1, 2))
            groups.append(names[:size])
            names = names[size:]
            if draw.random() < 0.4:
                break
        layers = problem.spec.layers
        ends = [*sorted(draw.sample(range(1, layers), len(groups) - 1)), layers]
        load = replica_load(problem, 1 / count)
        stages = []
        for first, end, group in zip((0, *ends), ends, groups, strict=False):
            members = [(problem.cluster.device(name), 1 / len(group)) for name in group]
            stages += group_on(load, members, first, end)
        replicas.append(Replica(stages=tuple(stages), weight=1 / count))
    return replicas


def least_bytes(problem: PlacementProblem, plan: Plan) -> dict[str, float]:
    """By device, computed here: weights of its layers once, keys and values per replica."""
    weights: dict[str, dict[int, float]] = defaultdict(dict)
    kept: dict[str, float] = defaultdict(float)
    for replica in plan.replicas:
        requests = max(1, round(problem.workload.concurrency * replica.weight))
        for stage in replica.stages:
            for layer in range(stage.first_layer, stage.end_layer):
                each = 2 * problem.spec.layer_parameters(layer, layer + 1) * stage.share
                weights[stage.device][layer] = max(each, weights[stage.device].get(layer, 0.0))
            slots = requests * problem.workload.slots_per_sequence * stage.share
            layers = stage.end_layer - stage.first_layer
            kept[stage.device] += slots * problem.spec.kv_bytes_per_token() * layers / problem.spec.layers
    return {name: sum(parts.values()) + kept[name] for name, parts in weights.items()}


@pytest.mark.row("par-constraints", "mechanism")
@pytest.mark.row("par-constraints", "effect", claims=(1,))
@pytest.mark.slow
def test_of_a_thousand_random_plans_none_is_accepted_that_breaks_a_limit(measured: Measure) -> None:
    accepted = violations = 0
    for seed in range(1000):
        draw = random.Random(seed)
        problem = random_problem(seed % 50)
        wished = draw.choice((None, 0.05, 0.5, 5.0))
        gap = draw.choice((None, 0.01, 0.1))
        problem = dataclasses.replace(problem, objective=Objective(ttft_s=wished, inter_token_s=gap))
        replicas = random_replicas(problem, draw)
        try:
            plan = finish("fuzz", problem, *replicas)
        except Infeasible:
            continue
        accepted += 1
        for name, size in least_bytes(problem, plan).items():
            capacity = problem.cluster.device(name).memory[-1].capacity_bytes
            violations += size > 0.9 * capacity
        _, told = predict_all(problem, plan.replicas, plan.handoffs)
        violations += wished is not None and told.ttft_s > wished
        violations += gap is not None and told.inter_token_s > gap
    measured("plans accepted of 1,000", accepted, at_least=50)
    measured("limits broken by accepted plans", violations, at_most=0)


@pytest.mark.row("par-constraints", "mechanism")
class TestConstrained:
    problem = random_problem(11)

    def test_forbidden_devices_run_nothing(self) -> None:
        free = Constrained().plan(self.problem)
        used = free.stages[0].device
        found = Constrained(forbidden=(used,)).plan(self.problem)
        assert used not in {stage.device for stage in found.stages}
        assert found.throughput_tokens_per_s <= free.throughput_tokens_per_s * (1 + 1e-9)

    def test_texts_stay_where_they_may_be_seen(self) -> None:
        used = Constrained().plan(self.problem).stages[0].device
        others = tuple(d.name for d in self.problem.cluster.devices if d.name != used)
        found = Constrained(texts_on=others).plan(self.problem)
        for replica in found.replicas:
            assert {replica.stages[0].device, replica.stages[-1].device} <= set(others)

    def test_what_cannot_be_kept_names_the_limit(self) -> None:
        every = tuple(device.name for device in self.problem.cluster.devices)
        with pytest.raises(Infeasible, match="every device of the cluster is forbidden"):
            Constrained(forbidden=every).plan(self.problem)
        with pytest.raises(UnknownName, match="no device 'd9'"):
            Constrained(required=("d9",)).plan(self.problem)
        with pytest.raises(Infeasible, match="which is required"):
            Constrained(strategy="single", required=every[:2]).plan(self.problem)
