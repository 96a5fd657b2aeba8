"""Plans: memory, predictions, the limit that binds, and remedies that work when followed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import pytest
from resource_samples import GPU, LLAMA_1B, TINY, measured_device

from pentad.errors import Infeasible, InvalidRequest, UnknownName
from pentad.execution.device import Cluster, DeviceProfile, Link, MemoryTier
from pentad.execution.spec import Head
from pentad.registry import known
from pentad.resource.placement import ModelForm, Workload, plan
from pentad.types import Objective

GIB = 2**30


def edge(name: str, gib: float, **changes: object) -> DeviceProfile:
    memory = (MemoryTier(name="main", capacity_bytes=int(gib * GIB), read_bytes_per_s=5e10),)
    return dataclasses.replace(GPU, name=name, memory=memory, **changes)  # type: ignore[arg-type]


def ring(*devices: DeviceProfile, bytes_per_s: float = 1e8, latency_s: float = 1e-3) -> Cluster:
    pairs = itertools.pairwise(devices)
    links = tuple(
        Link(source=a.name, target=b.name, bytes_per_s=bytes_per_s, latency_s=latency_s) for a, b in pairs
    )
    return Cluster(devices=devices, links=links)


def mesh(*devices: DeviceProfile) -> Cluster:
    pairs = itertools.permutations(devices, 2)
    links = (Link(source=a.name, target=b.name, bytes_per_s=1e8, latency_s=1e-3) for a, b in pairs)
    return Cluster(devices=devices, links=tuple(links))


@pytest.mark.row("m-llama3", "mechanism")
def test_llama_3_2_1b_needs_its_weights_and_kv_and_activations() -> None:
    found = plan("single", LLAMA_1B, Cluster(devices=(GPU,)), Workload(prompt_tokens=4000, new_tokens=96))
    (stage,) = found.stages
    assert stage.weight_bytes == pytest.approx(2.47e9, rel=0.01)  # 2.30 GiB: weights only
    assert stage.kv_bytes == 4096 * 2 * 16 * 8 * 64 * 2
    assert stage.activation_bytes > 0
    assert stage.total_bytes == stage.weight_bytes + stage.kv_bytes + stage.activation_bytes


@pytest.mark.parametrize("name", known("placement"))
class TestEveryStrategy:
    cluster = mesh(dataclasses.replace(GPU, name="one"), dataclasses.replace(GPU, name="two"))
    load = Workload(concurrency=4)

    def test_replicas_hold_every_layer_once_and_their_shares_add_up(self, name: str) -> None:
        found = plan(name, TINY, self.cluster, self.load)
        assert found.strategy == name
        for phase in {replica.role for replica in found.replicas}:
            weights = [replica.weight for replica in found.replicas if replica.role == phase]
            assert sum(weights) == pytest.approx(1)
        for replica in found.replicas:
            bounds = [group[0].layers for group in replica.groups]
            assert all(sum(stage.share for stage in group) == pytest.approx(1) for group in replica.groups)
            assert [first for first, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
            assert bounds[-1][1] == TINY.layers
            assert all(stage.total_bytes <= stage.usable_bytes for stage in replica.stages)

    def test_equal_problems_get_equal_plans_which_are_plain_data(self, name: str) -> None:
        found = plan(name, TINY, self.cluster, self.load)
        assert plan(name, TINY, self.cluster, self.load) == found
        data = json.loads(json.dumps(found.to_dict()))
        assert [stage["total_bytes"] for stage in data["stages"]] == [s.total_bytes for s in found.stages]
        assert data["replicas"][0]["stages"][0] == data["stages"][0]

    def test_a_plan_says_what_was_chosen_and_an_impossible_one_what_would_help(self, name: str) -> None:
        made = plan(name, TINY, self.cluster, self.load).decisions
        (decision,) = (one for one in made if one.subject == "placement")
        assert decision.policy == name
        assert decision.candidates
        small = mesh(*(edge(each, 0.001) for each in ("one", "two")))
        with pytest.raises(Infeasible) as caught:
            plan(name, TINY, small, self.load)
        assert caught.value.hint


class TestSingle:
    def test_the_fastest_device_that_holds_the_model_is_chosen(self) -> None:
        slow, fast, small = edge("slow", 16), edge("fast", 8, flops_per_s={"bf16": 4e14}), edge("small", 1)
        fast = dataclasses.replace(fast, memory=(dataclasses.replace(fast.memory[0], read_bytes_per_s=2e11),))
        found = plan("single", LLAMA_1B, Cluster(devices=(slow, small, fast)))
        assert [stage.device for stage in found.stages] == ["fast"]

    def test_predictions_are_the_step_times_of_the_device(self) -> None:
        found = plan("single", LLAMA_1B, Cluster(devices=(GPU,)), Workload(prompt_tokens=512, new_tokens=100))
        assert found.inter_token_s == pytest.approx(LLAMA_1B.parameters * 2 / (0.8 * 1e12), rel=0.02)
        compute = 2 * 512 * LLAMA_1B.layer_parameters() / (0.6 * 100e12)
        assert found.ttft_s == pytest.approx(compute, rel=0.2)
        assert found.throughput_tokens_per_s < 1 / found.inter_token_s

    def test_concurrency_raises_throughput_and_latency(self) -> None:
        one, many = (
            plan("single", LLAMA_1B, Cluster(devices=(GPU,)), Workload(concurrency=n)) for n in (1, 16)
        )
        assert many.throughput_tokens_per_s > 4 * one.throughput_tokens_per_s
        assert many.inter_token_s > one.inter_token_s
        assert many.ttft_s > one.ttft_s

    def test_the_plan_says_where_its_numbers_come_from(self) -> None:
        assert plan("single", TINY, Cluster(devices=(measured_device(),))).source == "measured"
        assert plan("single", TINY, Cluster(devices=(GPU,))).source == "published"


class TestInfeasible:
    def test_too_little_memory_is_refused_with_numbers_and_a_remedy_that_works(self) -> None:
        cluster = Cluster(devices=(edge("edge-3", 2),))
        with pytest.raises(Infeasible) as caught:
            plan("single", LLAMA_1B, cluster)
        text = str(caught.value)
        assert "device 'edge-3' has 1.8 GiB free, model 'llama-3.2-1b' in 16 bits needs 2.4 GiB" in text
        assert "weights 2.3 GiB" in text
        assert caught.value.hint == "set --weight-bits 8 or add a device"
        assert caught.value.exit_code == 3
        plan("single", LLAMA_1B, cluster, form=ModelForm(weight_bits=8))
        pair = ring(edge("edge-3", 2), edge("edge-4", 2))
        plan("uniform", LLAMA_1B, pair)

    def test_too_much_concurrency_is_refused_with_the_largest_that_fits(self) -> None:
        cluster = Cluster(devices=(edge("box", 4),))
        load = Workload(prompt_tokens=4000, new_tokens=96, concurrency=500)
        with pytest.raises(Infeasible) as caught:
            plan("single", LLAMA_1B, cluster, load)
        hint = str(caught.value.hint)
        assert hint.startswith("set --concurrency ")
        most = int(hint.split()[2])
        plan("single", LLAMA_1B, cluster, dataclasses.replace(load, concurrency=most))
        with pytest.raises(Infeasible):
            plan("single", LLAMA_1B, cluster, dataclasses.replace(load, concurrency=most + 1))

    def test_a_hopeless_model_gets_no_false_hope(self) -> None:
        with pytest.raises(Infeasible, match="add a device or choose a smaller model"):
            plan("single", LLAMA_1B, Cluster(devices=(edge("watch", 0.1),)))

    @pytest.mark.parametrize("limit", ["ttft_s", "inter_token_s", "deadline_s"])
    def test_a_latency_that_cannot_be_met_is_named(self, limit: str) -> None:
        with pytest.raises(Infeasible, match=f"predicted {limit} of .*, asked is at most 1e-06") as caught:
            plan("single", LLAMA_1B, Cluster(devices=(GPU,)), objective=Objective(**{limit: 1e-6}))
        assert caught.value.param == limit

    @pytest.mark.parametrize(
        ("limit", "needed"), [("max_cost", "price_per_hour"), ("max_energy_j", "power_w")]
    )
    def test_cost_and_energy_are_kept_where_the_device_tells_and_refused_where_not(
        self, limit: str, needed: str
    ) -> None:
        telling = dataclasses.replace(GPU, **{needed: 360.0})  # type: ignore[arg-type]
        found = plan("single", LLAMA_1B, Cluster(devices=(telling,)))
        share_s = 128 / found.throughput_tokens_per_s
        value = found.cost_per_request if limit == "max_cost" else found.energy_j_per_request
        assert value == pytest.approx(share_s * (0.1 if limit == "max_cost" else 360.0))
        with pytest.raises(Infeasible, match=f"predicted {limit}"):
            plan("single", LLAMA_1B, Cluster(devices=(telling,)), objective=Objective(**{limit: value / 2}))
        with pytest.raises(Infeasible, match=f"cannot be checked.*{needed}"):
            plan("single", LLAMA_1B, Cluster(devices=(GPU,)), objective=Objective(**{limit: 1e9}))

    def test_a_latency_that_is_met_becomes_the_binding_limit(self) -> None:
        free = plan("single", LLAMA_1B, Cluster(devices=(GPU,)))
        tight = Objective(inter_token_s=free.inter_token_s * 1.01)
        bound = plan("single", LLAMA_1B, Cluster(devices=(GPU,)), objective=tight)
        assert bound.binding == "inter_token_s"
        assert bound.decisions[0].constraint == "inter_token_s"
        assert free.binding == "matrices on 'gpu'"

    def test_speed_is_reported_before_memory_when_one_device_holds_the_model(self) -> None:
        cluster = Cluster(devices=(edge("small", 1), edge("large", 16)))
        with pytest.raises(Infeasible, match="'large' has a predicted ttft_s"):
            plan("single", LLAMA_1B, cluster, objective=Objective(ttft_s=1e-6))

    def test_no_devices_no_plan(self) -> None:
        with pytest.raises(Infeasible, match="the cluster has no devices"):
            plan("single", TINY, Cluster(devices=()))

    def test_an_unknown_strategy_is_answered_with_the_known_ones(self) -> None:
        with pytest.raises(UnknownName, match="known: auto, exact, single, uniform"):
            plan("magic", TINY, Cluster(devices=(GPU,)))


class TestUniform:
    def test_layers_are_split_evenly_and_completely(self) -> None:
        stack = dataclasses.replace(LLAMA_1B.stack, blocks=LLAMA_1B.blocks[:1] * 17)
        spec = dataclasses.replace(LLAMA_1B, stack=stack)
        found = plan("uniform", spec, ring(*(edge(f"d{i}", 8) for i in range(3))))
        assert [(s.first_layer, s.end_layer) for s in found.stages] == [(0, 6), (6, 12), (12, 17)]

    def test_the_stages_hold_all_weights_and_a_second_table_only_when_head_and_embedding_are_tied(
        self,
    ) -> None:
        table = LLAMA_1B.vocab_size * LLAMA_1B.width
        for tied, extra in ((True, table), (False, 0)):
            spec = dataclasses.replace(LLAMA_1B, head=Head(tied=tied))
            found = plan("uniform", spec, ring(edge("a", 8), edge("b", 8)))
            held = sum(stage.weight_bytes for stage in found.stages)
            assert held == pytest.approx(2 * (spec.parameters + extra), rel=1e-5)

    def test_kv_is_shared_out_by_layers(self) -> None:
        whole = plan("single", LLAMA_1B, Cluster(devices=(GPU,))).stages[0]
        halves = plan("uniform", LLAMA_1B, ring(edge("a", 8), edge("b", 8))).stages
        assert sum(stage.kv_bytes for stage in halves) == whole.kv_bytes

    @pytest.mark.parametrize(
        ("load", "gain"),
        [
            (Workload(concurrency=1, prompt_tokens=16, new_tokens=512), 1.0),
            # Two half batches read the weights twice, so nothing is gained while these dominate.
            (Workload(concurrency=64, prompt_tokens=16, new_tokens=512), 1.0),
            (Workload(concurrency=64, prompt_tokens=30_000, new_tokens=512), 1.9),
        ],
        ids=["one sequence", "many short ones", "many long ones"],
    )
    def test_a_pipeline_gains_where_keys_and_values_dominate(self, load: Workload, gain: float) -> None:
        device = edge("a", 200)
        pair = ring(device, edge("b", 200), bytes_per_s=1e11, latency_s=1e-6)
        alone = plan("single", LLAMA_1B, Cluster(devices=(device,)), load)
        piped = plan("uniform", LLAMA_1B, pair, load)
        assert piped.throughput_tokens_per_s / alone.throughput_tokens_per_s == pytest.approx(gain, rel=0.1)

    def test_a_slow_link_shows_in_every_token(self) -> None:
        devices = (edge("a", 8), edge("b", 8))
        quick, slow = (plan("uniform", LLAMA_1B, ring(*devices, latency_s=s)) for s in (1e-6, 0.2))
        assert slow.inter_token_s - quick.inter_token_s == pytest.approx(0.2, rel=0.01)

    def test_a_missing_link_is_named(self) -> None:
        cluster = Cluster(devices=(edge("a", 8), edge("b", 8)))
        with pytest.raises(Infeasible, match="no link from device 'a' to 'b'"):
            plan("uniform", LLAMA_1B, cluster)

    def test_more_devices_than_layers_are_refused(self) -> None:
        with pytest.raises(Infeasible, match="use at most 4 devices"):
            plan("uniform", TINY, ring(*(edge(f"d{i}", 8) for i in range(5))))

    def test_the_stage_that_does_not_fit_is_named_with_its_layers(self) -> None:
        with pytest.raises(Infeasible, match=r"device 'b' has .* layers 8 to 15 of model"):
            plan("uniform", LLAMA_1B, ring(edge("a", 8), edge("b", 1)))


@pytest.mark.parametrize("field", ["prompt_tokens", "new_tokens", "concurrency"])
def test_an_empty_workload_is_refused(field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        Workload(**{field: 0})


class TestRemedies:
    """A hint of a plan that misses its objective is a change that was tried."""

    def refused(self, load: Workload, objective: Objective, device: DeviceProfile = GPU) -> str:
        with pytest.raises(Infeasible) as caught:
            plan("single", LLAMA_1B, Cluster(devices=(device,)), load, objective)
        return str(caught.value.hint)

    def test_fewer_bits_are_named_where_they_are_enough(self) -> None:
        own = plan("single", LLAMA_1B, Cluster(devices=(GPU,)))
        objective = Objective(inter_token_s=own.inter_token_s * 0.7)
        assert self.refused(Workload(), objective) == "set --weight-bits 8"
        plan(
            "single", LLAMA_1B, Cluster(devices=(GPU,)), Workload(), objective, form=ModelForm(weight_bits=8)
        )

    def test_a_smaller_load_is_named_where_it_is_enough(self) -> None:
        load = Workload(concurrency=64)
        objective = Objective(ttft_s=plan("single", LLAMA_1B, Cluster(devices=(GPU,)), load).ttft_s * 0.9)
        hint = self.refused(load, objective)
        found = re.fullmatch(r"set (--weight-bits (\d) ?)?(and )?(--concurrency (\d+))?", hint)
        assert found is not None
        plan(
            "single",
            LLAMA_1B,
            Cluster(devices=(GPU,)),
            Workload(concurrency=int(found[5] or 64)),
            objective,
            form=ModelForm(weight_bits=int(found[2] or 16)),
        )

    def test_cost_falls_with_more_requests_at_once(self) -> None:
        device = dataclasses.replace(GPU, price_per_hour=3.6)
        cost = plan(
            "single", LLAMA_1B, Cluster(devices=(device,)), form=ModelForm(weight_bits=4)
        ).cost_per_request
        assert cost is not None
        objective = Objective(max_cost=cost / 2)
        hint = self.refused(Workload(), objective, device)
        assert hint.startswith("set --concurrency ")
        load = Workload(concurrency=int(hint.split()[-1]))
        plan("single", LLAMA_1B, Cluster(devices=(device,)), load, objective)

    def test_where_nothing_helps_the_hint_is_what_the_device_can_do(self) -> None:
        hint = self.refused(Workload(), Objective(ttft_s=1e-9, deadline_s=1e-9))
        found = re.fullmatch(r"relax ttft_s to (\S+) and deadline_s to (\S+), or choose another device", hint)
        assert found is not None
        relaxed = Objective(ttft_s=float(found[1]), deadline_s=float(found[2]))
        plan("single", LLAMA_1B, Cluster(devices=(GPU,)), Workload(), relaxed)
