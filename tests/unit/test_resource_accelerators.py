"""Accelerators: interfaces probed by their libraries, links of one vendor, FPGAs, crossbars, modes."""

from __future__ import annotations

import ctypes
import dataclasses
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
from resource_samples import LLAMA_1B

from evidence.plugin import Measure
from pentad.errors import Incompatible, Infeasible, InvalidRequest
from pentad.execution.device import Cluster, Link, LinkSpeed
from pentad.execution.form import ModelForm
from pentad.execution.spec import ModelSpec, Rope
from pentad.execution.uniform import uniform_spec
from pentad.resource import profile
from pentad.resource.backends import SUBJECT, backend_for, share_layers
from pentad.resource.cluster_file import read_cluster
from pentad.resource.cost import StepCost
from pentad.resource.placement.auto import AutoPlacement
from pentad.resource.placement.base import PlacementProblem, Workload
from pentad.resource.placement.single import SingleDevice
from pentad.resource.placement.tensor import TensorParallel
from pentad.resource.profile.apis import APIS, probe, probe_all
from pentad.resource.profile.crossbars import CrossbarLinear
from pentad.resource.step_shape import StepShape

LINK = LinkSpeed(bytes_per_s=1.25e9, latency_s=1e-4)


def llama(
    name: str, layers: int, width: int, heads: int, kv_heads: int, ffn_width: int, words: int
) -> ModelSpec:
    return uniform_spec(
        name=name,
        family="llama",
        vocab_size=words,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width // heads,
        ffn_width=ffn_width,
        context_length=131_072,
        positions=Rope(dim=width // heads),
        tied_head=False,
    )


LLAMA2_7B = llama("llama2-7b", 32, 4096, 32, 32, 11_008, 32_000)


FUNCTIONS = {
    "cuInit": "_cuda_init",
    "cuDeviceGetCount": "_count",
    "hipGetDeviceCount": "_count",
    "cuDeviceGetName": "_name",
    "hipDeviceGetName": "_name",
    "vkCreateInstance": "_create",
    "vkEnumeratePhysicalDevices": "_enumerate",
    "vkGetPhysicalDeviceProperties": "_properties",
    "vkDestroyInstance": "_destroy",
    "clGetPlatformIDs": "_platforms",
    "clGetDeviceIDs": "_devices",
    "clGetDeviceInfo": "_info",
    "MTLCreateSystemDefaultDevice": "_metal",
}
"""What probes call, and what answers here."""


class FakeLibrary:
    """A vendor's library with these devices: every function that probes call."""

    def __init__(self, *names: str, answer: int = 0) -> None:
        self.names, self.answer = names, answer
        self.destroyed = 0

        def metal() -> int | None:
            return 1 if names else None

        self._metal = metal

    def __getattr__(self, name: str) -> Any:
        if name not in FUNCTIONS:
            raise AttributeError(name)
        return getattr(self, FUNCTIONS[name])

    def _cuda_init(self, flags: int) -> int:
        return self.answer

    def _count(self, pointer: Any) -> int:
        pointer._obj.value = len(self.names)
        return self.answer

    def _name(self, buffer: Any, size: int, place: int) -> int:
        buffer.value = self.names[place].encode()
        return 0

    def _create(self, info: Any, allocator: None, instance: Any) -> int:
        assert info._obj.kind == 1
        return self.answer

    def _enumerate(self, instance: Any, count: Any, handles: Any) -> int:
        count._obj.value = len(self.names)
        for i in range(len(self.names) if handles is not None else 0):
            handles[i] = i + 1
        return 0

    def _properties(self, handle: Any, properties: Any) -> None:
        name = self.names[handle.value - 1].encode() + b"\0"
        ctypes.memmove(ctypes.addressof(properties) + 20, name, len(name))

    def _destroy(self, instance: Any, allocator: None) -> None:
        self.destroyed += 1

    def _platforms(self, most: int, platforms: Any, count: Any) -> int:
        platforms[0], count._obj.value = 7, 1
        return self.answer

    def _devices(self, platform: Any, kind: Any, most: int, handles: Any, found: Any) -> int:
        for i in range(len(self.names)):
            handles[i] = i + 1
        found._obj.value = len(self.names)
        return 0 if self.names else -1

    def _info(self, device: Any, what: int, size: Any, name: Any, told: None) -> int:
        name.value = self.names[device.value - 1].encode()
        return 0


def nowhere(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


PLATFORM = {"metal": "darwin"}


class TestProbes:
    @pytest.mark.row("api-cuda", "mechanism")
    @pytest.mark.row("api-rocm", "mechanism", claims=(1,))
    @pytest.mark.row("api-metal", "mechanism", claims=(1,))
    @pytest.mark.row("api-vulkan", "mechanism")
    @pytest.mark.row("api-opencl", "mechanism")
    @pytest.mark.parametrize("api", APIS)
    def test_a_fake_device_is_found_and_its_absence_told(self, api: str) -> None:
        platform = PLATFORM.get(api, "linux")
        there = probe(api, load=lambda name: FakeLibrary("Device One"), platform=platform)
        assert there.present
        assert there.devices in {("Device One",), ("the system's default device",)}
        none = probe(api, load=nowhere, platform=platform)
        assert not none.present
        assert "is not installed" in none.detail
        empty = probe(api, load=lambda name: FakeLibrary(), platform=platform)
        assert not empty.present
        assert "sees no device" in empty.detail
        old = probe(api, load=lambda name: object(), platform=platform)
        assert not old.present
        assert "no such function" in old.detail

    @pytest.mark.parametrize("api", [api for api in APIS if api != "metal"])
    def test_a_driver_that_refuses_is_absence(self, api: str) -> None:
        found = probe(api, load=lambda name: FakeLibrary("x", answer=100), platform="linux")
        assert not found.present
        assert "answers 100" in found.detail

    def test_vulkan_gives_its_instance_back(self) -> None:
        library = FakeLibrary("a", "b")
        assert probe("vulkan", load=lambda name: library, platform="linux").devices == ("a", "b")
        assert library.destroyed == 1

    def test_metal_is_nowhere_but_on_macs(self) -> None:
        assert "there is no metal on linux" in probe("metal", platform="linux").detail

    @pytest.mark.row("api-cuda", "mechanism")
    def test_this_machine_is_asked_without_failing(self) -> None:
        found = {one.api: one for one in probe_all()}
        assert tuple(found) == APIS
        for one in found.values():
            assert one.present == bool(one.devices)
            assert one.present or one.detail
        if sys.platform != "darwin":
            assert not found["metal"].present


class TestBackends:
    @pytest.mark.row("api-vulkan", "mechanism", claims=(1,))
    def test_without_cuda_a_backend_that_has_vulkan_is_picked(self) -> None:
        assert backend_for(profile.find("rtx-4090")).chosen == "engine:cuda on rtx-4090"
        assert backend_for(profile.find("arc-a770-16gb")).chosen == "llamacpp:vulkan on arc-a770-16gb"
        without = dataclasses.replace(profile.find("rtx-4090"), apis=frozenset({"vulkan", "opencl"}))
        assert backend_for(without).chosen == "llamacpp:vulkan on rtx-4090"

    @pytest.mark.row("api-rocm", "mechanism", claims=(1,))
    @pytest.mark.row("api-metal", "mechanism", claims=(1,))
    @pytest.mark.row("api-opencl", "mechanism")
    @pytest.mark.parametrize(
        ("device", "chosen"),
        [
            ("mi300x", "engine:rocm"),
            ("apple-m2-16gb", "llamacpp:metal"),
            ("ascend-910", "llamacpp:cann"),
            ("tpu-v5e", "openai"),
            ("xeon-8480plus-512gb", "engine:cpu"),
        ],
    )
    def test_each_device_is_reached_by_its_own_interface(self, device: str, chosen: str) -> None:
        assert backend_for(profile.find(device)).chosen == f"{chosen} on {device}"
        only = dataclasses.replace(profile.find("arc-a770-16gb"), apis=frozenset({"opencl"}))
        assert backend_for(only).chosen.startswith("llamacpp:opencl")

    def test_a_plan_says_which_backend_serves_each_device(self) -> None:
        cluster = Cluster(devices=(profile.find("apple-m2-16gb"),))
        plan = SingleDevice().plan(PlacementProblem(spec=LLAMA_1B, cluster=cluster))
        assert [one.chosen for one in plan.decisions if one.subject == SUBJECT] == [
            "llamacpp:metal on apple-m2-16gb"
        ]


def mixed() -> Cluster:
    """Two Ascend 910 with their own links, and an L40S behind Ethernet."""
    names = (("ascend-910", "ascend-1"), ("ascend-910", "ascend-2"), ("l40s", "nvidia-1"))
    devices = tuple(dataclasses.replace(profile.find(kind), name=name) for kind, name in names)
    rate = devices[0].ports["hccs"]
    links = tuple(
        Link(source=a, target=b, bytes_per_s=rate, latency_s=2e-6)
        for a, b in (("ascend-1", "ascend-2"), ("ascend-2", "ascend-1"))
    )
    return Cluster(devices=devices, links=links, default_link=LINK)


class TestVendors:
    @pytest.mark.row("prof-ascend", "mechanism", claims=(1, 2))
    def test_ascend_is_planned_beside_nvidia_and_never_shares_its_layers(self) -> None:
        # 65 GB of weights in 16 bits: the devices of neither vendor hold them by themselves.
        spec = llama("llama-30b", 60, 6656, 52, 52, 17_920, 32_000)
        load = Workload(prompt_tokens=512, new_tokens=128, concurrency=4)
        plan = AutoPlacement(tries=60).plan(PlacementProblem(spec=spec, cluster=mixed(), workload=load))
        assert {stage.device for stage in plan.stages} == {"ascend-1", "ascend-2", "nvidia-1"}
        for replica in plan.replicas:
            for group in replica.groups:
                assert len({stage.device.split("-")[0] for stage in group}) == 1
        assert {one.chosen.split(":")[0] for one in plan.decisions if one.subject == SUBJECT} == {
            "engine",
            "llamacpp",
        }

    def test_layers_shared_over_vendors_are_refused_with_the_reason(self) -> None:
        ascend, _, nvidia = mixed().devices
        assert share_layers([nvidia, nvidia])
        assert not share_layers([nvidia, ascend])
        cluster = Cluster(devices=(nvidia, ascend), default_link=LINK)
        with pytest.raises(Infeasible, match=r"NCCL.*HCCL.*no collective library in common"):
            TensorParallel().plan(PlacementProblem(spec=LLAMA_1B, cluster=cluster))

    @pytest.mark.row("prof-ascend", "mechanism", claims=(2,))
    def test_a_link_goes_only_over_ports_that_both_devices_have(self, tmp_path: pathlib.Path) -> None:
        file = tmp_path / "cluster.yaml"
        kinds = (("a", "ascend-910"), ("b", "ascend-910"), ("n", "h100-sxm"))
        named = (f"{{name: {name}, profile: {kind}}}" for name, kind in kinds)
        entries = f"devices: [{', '.join(named)}]"
        file.write_text(f"{entries}\nlinks: [{{between: [a, b], over: hccs, latency_s: 2e-6}}]\n")
        link = read_cluster(file).link("a", "b")
        assert link is not None
        assert link.bytes_per_s == profile.find("ascend-910").ports["hccs"]
        file.write_text(f"{entries}\nlinks: [{{between: [a, n], over: nvlink, latency_s: 2e-6}}]\n")
        with pytest.raises(
            InvalidRequest, match=r"over 'nvlink', which 'a' does not have \(it has hccs, pcie\)"
        ):
            read_cluster(file)
        file.write_text(f"{entries}\nlinks: [{{between: [a, n], latency_s: 2e-6}}]\n")
        with pytest.raises(InvalidRequest, match="has no speed"):
            read_cluster(file)


class TestFpga:
    @pytest.mark.row("prof-fpga", "mechanism", claims=(2,))
    def test_plans_with_many_scores_avoid_lanes_that_are_few(self) -> None:
        fpga = profile.find("versal-vhk158")
        slow = dataclasses.replace(profile.find("l4"), name="gpu", price_per_hour=None)
        form = ModelForm(weight_bits=8, kv_bits=8)
        cluster = Cluster(devices=(fpga, slow), default_link=LINK)

        def chosen(prompt: int, new: int) -> str:
            load = Workload(prompt_tokens=prompt, new_tokens=new, concurrency=1)
            problem = PlacementProblem(spec=LLAMA_1B, cluster=cluster, workload=load, form=form)
            return SingleDevice().plan(problem).stages[0].device

        assert chosen(64, 256) == "versal-vhk158", "weights are read two and a half times as fast"
        assert chosen(32_768, 64) == "gpu", "half a thousand million scores a head"

    def test_only_such_devices_pay_for_exponentials(self) -> None:
        fpga, shape = profile.find("alveo-u280"), StepShape.prefill(4096)
        form = ModelForm(weight_bits=8, kv_bits=8)
        free = dataclasses.replace(fpga, extra={})
        slow = StepCost(profile=fpga, spec=LLAMA_1B, form=form).terms(shape)[1]
        fast = StepCost(profile=free, spec=LLAMA_1B, form=form).terms(shape)[1]
        pairs = 4096 * 4097 / 2
        assert slow == pytest.approx(16 * 32 * pairs / fpga.extra["nonlinear_elements_per_s"])
        assert fast < slow

    @pytest.mark.row("prof-fpga", "effect")
    def test_a_published_decoding_rate_of_an_embedded_fpga_is_met(self, measured: Measure) -> None:
        # Li et al., 2025, abstract: LLaMA2-7B in AWQ's 4 bits (groups of 128) on the KV260, about 5 tokens/s.
        board = profile.find("kria-kv260")
        form = ModelForm(weight_bits=4 + 20 / 128, kv_bits=8)
        cost = StepCost(profile=board, spec=LLAMA2_7B, form=form)
        rate = 1 / cost.seconds(StepShape.decode(1, 512))
        measured("predicted tokens/s off the published 5", abs(rate / 5 - 1), at_most=0.2)


class TestJetson:
    @pytest.mark.row("prof-jetson", "mechanism", claims=(2,))
    def test_a_power_mode_changes_the_plan(self) -> None:
        def chosen(mode: str) -> list[tuple[str, tuple[int, int], float]]:
            devices = (
                dataclasses.replace(profile.find(f"jetson-agx-orin-64gb:mode={mode}"), name="orin"),
                dataclasses.replace(profile.find("jetson-orin-nano-super-8gb"), name="nano"),
            )
            cluster = Cluster(devices=devices, default_link=LINK)
            load = Workload(prompt_tokens=2048, new_tokens=32, concurrency=8)
            problem = PlacementProblem(spec=LLAMA_1B, cluster=cluster, workload=load)
            plan = AutoPlacement(tries=200).plan(problem)
            return sorted((s.device, s.layers, round(r.weight, 3)) for r in plan.replicas for s in r.stages)

        fast, slow = chosen("maxn"), chosen("15w")
        assert fast != slow

        def share(plan: list[tuple[str, tuple[int, int], float]]) -> float:
            return sum(weight * (end - first) for name, (first, end), weight in plan if name == "orin")

        assert share(fast) > share(slow), "the slower mode is given less of the work"

    @pytest.mark.row("prof-jetson", "effect", claims=(2,))
    def test_published_gains_of_a_mode_are_predicted(self, measured: Measure) -> None:
        # NVIDIA, Jetson Orin Nano Super presentation: tokens/s in INT4 by MLC, before (15 W) and after.
        published = {
            (32, 4096, 32, 8, 14_336, 128_256): (14.0, 19.14),  # Llama 3.1 8B
            (28, 3072, 24, 8, 8192, 128_256): (27.7, 43.07),  # Llama 3.2 3B
            (28, 3584, 28, 4, 18_944, 152_064): (14.2, 21.75),  # Qwen2.5 7B
            (32, 3072, 32, 32, 8192, 32_064): (24.7, 38.1),  # Phi 3.5 3B
        }
        form, shape = ModelForm(weight_bits=4.5, kv_bits=16), StepShape.decode(1, 256)
        errors, board = [], "jetson-orin-nano-super-8gb"
        for (layers, width, heads, kv_heads, ffn_width, words), (before, after) in published.items():
            spec = llama("m", layers, width, heads, kv_heads, ffn_width, words)
            slow, fast = (
                StepCost(profile=profile.find(f"{board}:mode={mode}"), spec=spec, form=form).seconds(shape)
                for mode in ("15w", "maxn")
            )
            errors.append(abs(slow / fast / (after / before) - 1))
        measured("gain of the faster mode, worst error of 4 models", max(errors), at_most=0.25)


def crossbar(**extra: float) -> CrossbarLinear:
    device = profile.find("isaac-ce")
    device = dataclasses.replace(device, extra={**device.extra, "fault_rate": 0.0, **extra})
    return CrossbarLinear(device=device, weight_bits=8, seed=5)


class TestCrossbars:
    @pytest.mark.row("prof-imc", "effect", claims=(1,))
    @pytest.mark.parametrize("snr_db", [20.0, 30.0])
    def test_the_set_ratio_of_signal_to_noise_comes_out(self, snr_db: float, measured: Measure) -> None:
        worst = 0.0
        for seed in range(5):
            draw = np.random.default_rng(seed)
            linear = crossbar(noise_snr_db=snr_db)
            linear.write(draw.normal(size=(256, 128)))
            inputs = draw.normal(size=(512, 256))
            exact = inputs @ linear._held
            noise = linear.multiply(inputs) - exact
            worst = max(worst, abs(exact.var() / noise.var() / 10 ** (snr_db / 10) - 1))
        measured(f"ratio off {snr_db:g} dB, worst of 5 seeds", float(worst), at_most=0.05)

    @pytest.mark.row("prof-imc", "mechanism", claims=(2,))
    def test_only_cells_that_change_are_written_and_paid(self) -> None:
        linear, weights = crossbar(), np.random.default_rng(0).normal(size=(64, 32))
        first = linear.write(weights)
        assert first.cells == 64 * 32 * 4, "four cells of two bits for a weight of eight"
        assert first.joules == pytest.approx(first.cells * linear.device.extra["write_j_per_cell"])
        assert linear.write(weights).cells == 0
        changed = weights.copy()
        changed[3] *= -1
        again = linear.write(changed)
        assert 0 < again.cells <= 32 * 4
        assert again.seconds == pytest.approx(linear.device.extra["write_s_per_row"])
        assert linear.written.cells == first.cells + again.cells

    def test_stuck_cells_are_where_the_rate_says(self) -> None:
        linear = crossbar(fault_rate=0.05)
        linear.write(np.ones((300, 300)))
        assert np.mean(linear._held == 0) == pytest.approx(0.05, abs=0.005)

    def test_what_does_not_fit_or_is_no_crossbar_is_refused(self) -> None:
        with pytest.raises(Infeasible, match="cells"):
            crossbar(crossbars=1.0).write(np.ones((1000, 1000)))
        with pytest.raises(Incompatible, match="is no crossbar"):
            CrossbarLinear(device=profile.find("h100-sxm"))
        with pytest.raises(ValueError, match="write the weights first"):
            crossbar().multiply(np.ones((1, 4)))
