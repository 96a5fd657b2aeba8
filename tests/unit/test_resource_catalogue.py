"""The catalogue: every number has its source; modes and fixed operators count."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest
from resource_samples import LLAMA_1B, TINY

from evidence.plugin import Measure
from pentad.errors import Infeasible, InvalidRequest, UnknownName
from pentad.execution.device import Cluster, DeviceProfile, LinkSpeed
from pentad.execution.form import ModelForm
from pentad.execution.spec import ModelSpec
from pentad.execution.uniform import uniform_spec
from pentad.resource import profile
from pentad.resource.cost import StepCost
from pentad.resource.matrices import PRECISION_OF_BITS, flops_per_s, read_bytes_per_s, usable_bytes
from pentad.resource.operators import LEFT_OUT, graph_of, missing, split
from pentad.resource.placement.auto import AutoPlacement
from pentad.resource.placement.base import PlacementProblem, Workload
from pentad.resource.placement.single import SingleDevice
from pentad.resource.profile import files
from pentad.resource.step_shape import StepShape

FOLDER = pathlib.Path(profile.__file__).parent / "published"
NUMBERS = {
    "power_w",
    "idle_w",
    "battery_j",
    "reserved_bytes",
    "sustained_fraction",
    "ports",
    "modes",
    "cores",
    "extra",
}


def raw_entries() -> list[dict[str, Any]]:
    return [entry for file in sorted(FOLDER.glob("*.json")) for entry in json.loads(file.read_text())]


def narrowest(device: DeviceProfile) -> ModelForm:
    """The widest precision that the device computes, for weights and keys."""
    bits = max(
        bits for bits, names in PRECISION_OF_BITS.items() if any(n in device.flops_per_s for n in names)
    )
    return ModelForm(weight_bits=min(bits, 16), kv_bits=min(bits, 16))


class TestCatalogue:
    def test_every_device_is_sound_and_can_be_costed(self) -> None:
        devices = profile.published()
        assert len({device.name for device in devices}) == len(devices) >= 60
        for device in devices:
            files.check(device)
            assert device.source == "published"
            cost = StepCost(profile=device, spec=TINY, form=narrowest(device))
            assert cost.seconds(StepShape.decode(1, 10)) > 0
            assert profile.find(device.name) == device

    def test_every_number_says_on_whose_word_it_stands(self) -> None:
        known = {field.name for field in dataclasses.fields(DeviceProfile)}
        for entry in raw_entries():
            assert entry.keys() <= known, entry["name"]
            (device,) = (one for one in profile.published() if one.name == entry["name"])
            for name in (entry.keys() & NUMBERS) | {"memory", "flops_per_s"}:
                origin = device.origin(name)
                assert origin is not None, (device.name, name)
                assert origin.by, (device.name, name)
            # A source that names no number is a slip of the pen.
            for key in device.sources:
                part, _, rest = key.partition(".")
                assert key == "*" or part in entry, (device.name, key)
                assert part != "extra" or rest in device.extra, (device.name, key)

    def test_all_classes_of_the_survey_are_there(self) -> None:
        kinds = {device.kind for device in profile.published()}
        assert kinds == {
            *("cpu", "gpu", "tpu", "jetson", "ascend", "fpga", "asic", "imc"),
            *("phone", "pc", "glasses", "headset"),
        }
        apis = {api for device in profile.published() for api in device.apis}
        assert {"cuda", "rocm", "metal", "vulkan", "opencl"} <= apis

    def test_an_unknown_device_is_answered_with_the_nearest_one(self) -> None:
        with pytest.raises(UnknownName, match=r"did you mean 'h100-sxm'"):
            profile.find("h100-smx")

    def test_the_weakest_word_counts(self) -> None:
        assert profile.find("h100-sxm").weakest_source == "published"
        assert profile.find("ascend-910b3").weakest_source == "assumed"


class TestModes:
    @pytest.mark.row("prof-jetson", "mechanism")
    def test_a_mode_scales_rates_and_names_its_power(self) -> None:
        full, low = profile.find("jetson-agx-orin-64gb"), profile.find("jetson-agx-orin-64gb:mode=15w")
        (mode,) = (one for one in full.modes if one.name == "15w")
        assert low.power_w == 15
        assert flops_per_s(low, 16) == pytest.approx(flops_per_s(full, 16) * mode.compute_fraction)
        assert read_bytes_per_s(low, 1e9) == pytest.approx(
            read_bytes_per_s(full, 1e9) * mode.bandwidth_fraction
        )
        assert low.name == "jetson-agx-orin-64gb:mode=15w"

    def test_what_is_no_mode_is_refused_with_those_that_are(self) -> None:
        with pytest.raises(UnknownName, match="modes: 15w, 30w, 50w, maxn"):
            profile.find("jetson-agx-orin-64gb:mode=5w")
        with pytest.raises(InvalidRequest, match="has no power modes"):
            profile.find("h100-sxm:mode=15w")


class TestMemory:
    @pytest.mark.row("prof-jetson", "mechanism", claims=(1,))
    def test_a_plan_stays_within_what_the_processor_leaves_of_shared_memory(self) -> None:
        board = profile.find("jetson-orin-nano-super-8gb")
        assert board.shared_memory
        free = board.memory[-1].capacity_bytes - board.reserved_bytes
        assert usable_bytes(board, 0.9) == int(free * 0.9)
        cluster = Cluster(devices=(board,))
        load = Workload(prompt_tokens=4096, new_tokens=64, concurrency=14)
        plan = SingleDevice().plan(PlacementProblem(spec=LLAMA_1B, cluster=cluster, workload=load))
        assert sum(stage.total_bytes for stage in plan.stages) + board.reserved_bytes <= 0.95 * 2**33
        # The processor takes more: the same plan would exceed the memory that both share.
        busy = dataclasses.replace(board, reserved_bytes=5 * 2**30)
        with pytest.raises(Infeasible, match="free"):
            SingleDevice().plan(
                PlacementProblem(spec=LLAMA_1B, cluster=Cluster(devices=(busy,)), workload=load)
            )


class TestOperators:
    def test_a_graph_names_what_each_operation_needs(self) -> None:
        graph = {one.name: one.needs for one in graph_of(TINY)}
        assert graph["layers.3.attention"] == ("batch_matmul", "softmax")
        assert graph["layers.0.feed_forward"] == ("linear", "logistic", "mul", "mul", "add")
        assert graph["head"] == ("linear",)
        assert next(iter(graph)) == "embedding"

    @pytest.mark.row("prof-asic", "mechanism", claims=(1,))
    def test_an_unsupported_model_is_refused_with_the_operator_it_lacks(self) -> None:
        coral = profile.find("coral-edge-tpu-usb")
        with pytest.raises(Infeasible, match=r"no operator 'batch_matmul', which layers.0.attention"):
            PlacementProblem(spec=TINY, cluster=Cluster(devices=(coral,)))

    @pytest.mark.row("prof-asic", "mechanism", claims=(1, 2))
    def test_an_accelerator_made_for_some_families_runs_those_alone(self) -> None:
        cluster = Cluster(devices=(profile.find("inferentia2"),))
        assert SingleDevice().plan(PlacementProblem(spec=LLAMA_1B, cluster=cluster)).stages
        other = dataclasses.replace(LLAMA_1B, family="mamba")
        with pytest.raises(Infeasible, match=r"made for model families bloom.*is of 'mamba'"):
            PlacementProblem(spec=other, cluster=cluster)

    def test_of_several_devices_those_that_cannot_are_left_out_and_named(self) -> None:
        devices = (profile.find("rtx-4090"), profile.find("coral-edge-tpu-usb"))
        cluster = Cluster(devices=devices, default_link=LinkSpeed(bytes_per_s=1e9, latency_s=1e-4))
        plan = AutoPlacement().plan(PlacementProblem(spec=LLAMA_1B, cluster=cluster))
        assert {stage.device for stage in plan.stages} == {"rtx-4090"}
        (told,) = (one for one in plan.decisions if one.subject == LEFT_OUT)
        assert "coral-edge-tpu-usb" in told.chosen
        assert "batch_matmul" in (told.constraint or "")

    @pytest.mark.row("prof-tpu", "mechanism", claims=(1,))
    def test_the_graph_is_split_into_what_the_edge_tpu_and_its_host_compute(self) -> None:
        coral = profile.find("coral-edge-tpu-usb")
        vit = vision_transformer()
        operations = graph_of(vit)
        parts = split(operations, coral)
        assert [operation for part in parts for operation in part.operations] == list(operations)
        # Its compiler maps one segment: from the first operation that it has to the first that it lacks.
        assert [part.on_device for part in parts] == [False, True, False]
        assert [one.name for one in parts[1].operations] == ["layers.0.norm", "layers.0.projections"]
        # A compiler that maps every supported run would leave attention and activations to the host.
        free = split(operations, dataclasses.replace(coral, one_segment=False))
        host = {one.name.split(".")[-1] for part in free if not part.on_device for one in part.operations}
        assert host == {"embedding", "attention", "feed_forward"}
        on_device = sum(len(part.operations) for part in free if part.on_device)
        assert on_device / len(operations) > 0.6

    def test_a_device_without_a_list_computes_everything(self) -> None:
        (whole,) = split(graph_of(TINY), profile.find("h100-sxm"))
        assert whole.on_device
        assert missing(TINY, profile.find("h100-sxm")) is None


def vision_transformer() -> ModelSpec:
    """ViT-Tiny's layers: 12 of width 192 with three heads, layer norms and erf-GELU."""
    from pentad.execution.spec import Norm

    return uniform_spec(
        name="vit-tiny",
        family="vit",
        vocab_size=1,
        layers=12,
        width=192,
        heads=3,
        kv_heads=3,
        head_dim=64,
        ffn_width=768,
        context_length=197,
        positions=None,
        norm=Norm(kind="layer"),
        activation="gelu",
        gated=False,
        causal=False,
    )


class TestClients:
    @pytest.mark.row("prof-edge-clients", "effect", claims=(1, 2))
    def test_the_sizes_of_the_survey_fit_their_clients(self, measured: Measure) -> None:
        half = qwen_half()
        load = Workload(prompt_tokens=128, new_tokens=64)
        measured("0.5B in 16 bits, off the survey's 1 GB", abs(half.parameters * 2 / 1e9 - 1), at_most=0.1)
        fits = (
            ("glasses-ar1", half, 16),
            ("phone-4gb", LLAMA_1B, 8),
            ("phone-a17-pro", LLAMA_1B, 16),
            ("phone-snapdragon-8-gen-3", LLAMA_1B, 16),
        )
        for name, spec, bits in fits:
            cluster, form = Cluster(devices=(profile.find(name),)), ModelForm(weight_bits=bits)
            problem = PlacementProblem(spec=spec, cluster=cluster, workload=load, form=form)
            plan = SingleDevice().plan(problem)
            measured(
                f"{spec.name} in {bits} bits on {name}, of its free memory",
                plan.stages[0].total_bytes / usable_bytes(profile.find(name)),
                at_most=0.9,
            )
        large = uniform_spec(
            name="qwen2.5-72b",
            family="qwen2",
            vocab_size=152_064,
            layers=80,
            width=8192,
            heads=64,
            kv_heads=8,
            head_dim=128,
            ffn_width=29_568,
            context_length=32_768,
            positions=half.blocks[0].mixer.positions,  # type: ignore[union-attr]
            tied_head=False,
        )
        for name in ("glasses-ar1", "phone-snapdragon-8-gen-3", "pc-core-ultra-7-155h", "headset-xr2-gen-2"):
            cluster = Cluster(devices=(profile.find(name),))
            for bits in (16, 4):
                form = ModelForm(weight_bits=bits)
                problem = PlacementProblem(spec=large, cluster=cluster, workload=load, form=form)
                with pytest.raises(Infeasible, match=r"free, model 'qwen2.5-72b'"):
                    SingleDevice().plan(problem)

    @pytest.mark.row("prof-edge-clients", "mechanism")
    def test_what_is_warm_computes_slower(self) -> None:
        phone = profile.find("phone-a17-pro")
        cool = dataclasses.replace(phone, sustained_fraction=1.0)
        assert flops_per_s(phone, 16) == pytest.approx(flops_per_s(cool, 16) * phone.sustained_fraction)
        assert phone.battery_j


def qwen_half() -> ModelSpec:
    """Qwen2.5-0.5B by its published configuration."""
    from pentad.execution.spec import Rope

    return uniform_spec(
        name="qwen2.5-0.5b",
        family="qwen2",
        vocab_size=151_936,
        layers=24,
        width=896,
        heads=14,
        kv_heads=2,
        head_dim=64,
        ffn_width=4864,
        context_length=32_768,
        positions=Rope(base=1e6, dim=64),
        biases=frozenset({"qkv"}),
    )
