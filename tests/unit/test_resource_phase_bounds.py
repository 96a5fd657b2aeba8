"""Row phase-model: what bounds each phase, by hand and against published scaling."""

from __future__ import annotations

import math

import pytest

from evidence.plugin import Measure
from pentad.execution.device import DeviceProfile, LinkSpeed, MemoryTier
from pentad.execution.form import ModelForm
from pentad.resource import profile
from pentad.resource.phases import decode_label, distributed_label, load_label, prefill_label
from published_throughput import spec_of

LLAMA = spec_of("llama-3-8b")
F16, Q4 = ModelForm(), ModelForm(weight_bits=4.89)

# X. Dai, GPU benchmarks on LLM inference, LLaMA 3 8B by llama.cpp, May 2024, devices with both formats:
# tokens/s in 4 bits (Q4_K_M) and in 16 bits, of generating and of prompts, by length.
PUBLISHED = {
    "rtx-4080": {
        "decode": {512: (108.15, 40.58), 1024: (106.22, 40.29), 4096: (100.44, 39.44)},
        "prefill": {512: (5389.74, 7246.97), 1024: (5064.99, 6758.90), 4096: (3790.96, 4720.22)},
    },
    "rtx-3090": {
        "decode": {512: (115.42, 47.40), 1024: (111.74, 46.51), 4096: (97.31, 44.79), 8192: (87.49, 42.62)},
        "prefill": {
            512: (4030.40, 4444.65),
            1024: (3865.39, 4239.64),
            4096: (3169.91, 3410.47),
            8192: (2527.40, 2667.14),
        },
    },
    "rtx-4090": {
        "decode": {512: (130.58, 54.84), 1024: (127.74, 54.34), 4096: (119.44, 52.63), 8192: (110.66, 50.88)},
        "prefill": {
            512: (7138.99, 9382.00),
            1024: (6898.71, 9056.26),
            4096: (5265.68, 6531.36),
            8192: (4039.68, 4744.18),
        },
    },
    "apple-m1-max-32c-64gb": {
        "decode": {512: (35.73, 18.75), 1024: (34.49, 18.43), 4096: (31.18, 16.33), 8192: (26.84, 15.03)},
        "prefill": {
            512: (408.23, 517.34),
            1024: (355.45, 418.77),
            4096: (329.84, 374.09),
            8192: (302.92, 351.46),
        },
    },
    "apple-m2-ultra-76c-192gb": {
        "decode": {512: (78.81, 36.90), 1024: (76.28, 36.25), 4096: (64.58, 33.67), 8192: (54.13, 30.68)},
        "prefill": {
            512: (994.04, 1175.40),
            1024: (1023.89, 1202.74),
            4096: (979.47, 1194.21),
            8192: (913.55, 1103.44),
        },
    },
    "apple-m3-max-40c-64gb": {
        "decode": {512: (48.97, 22.04), 1024: (50.74, 22.39), 4096: (44.21, 20.72), 8192: (36.12, 18.74)},
        "prefill": {
            512: (693.32, 769.84),
            1024: (678.04, 751.49),
            4096: (573.09, 609.97),
            8192: (505.32, 515.15),
        },
    },
}


def box(**extra: float) -> DeviceProfile:
    return DeviceProfile(
        name="box",
        kind="gpu",
        source="measured",
        memory=(
            MemoryTier(name="hbm", capacity_bytes=10**11, read_bytes_per_s=1e12),
            MemoryTier(name="disk", capacity_bytes=10**12, read_bytes_per_s=1e9),
        ),
        flops_per_s={"f16": 1e14},
        extra=extra,
    )


@pytest.mark.row("phase-model", "mechanism")
def test_each_phase_is_bound_by_what_it_keeps_busy_longest() -> None:
    # One token reads 15 GB in 15 ms and computes 14 GFLOP in 0.14 ms; at 107 tokens a step both take as long.
    assert decode_label(LLAMA, F16, box(), context=64).bound == "memory"
    assert decode_label(LLAMA, F16, box(), context=64, sequences=300).bound == "compute"
    assert prefill_label(LLAMA, F16, box(), 16).bound == "memory"
    label = prefill_label(LLAMA, F16, box(), 2048)
    assert label.bound == "compute"
    assert "cached prefixes" in label.remedy
    assert label.seconds["compute"] == pytest.approx(2 * 2048 * LLAMA.layer_parameters() / 1e14, rel=0.1)
    loading = load_label(LLAMA, F16, box())
    assert loading is not None
    assert loading.bound == "disk"
    assert load_label(LLAMA, F16, profile.find("h100-sxm")) is None


@pytest.mark.row("phase-model", "mechanism")
def test_over_a_slow_link_decoding_waits_for_the_network() -> None:
    slow, fast = LinkSpeed(bytes_per_s=125e6, latency_s=1e-4), LinkSpeed(bytes_per_s=450e9, latency_s=1e-6)
    over = distributed_label(LLAMA, F16, box(), slow, devices=4, context=512)
    assert (over.phase, over.bound) == ("distributed decode", "network")
    assert "pipeline" in over.remedy
    assert distributed_label(LLAMA, F16, box(), fast, devices=4, context=512).bound == "memory"


@pytest.mark.row("phase-model", "effect", claims=(1,))
def test_predicted_bounds_are_those_that_published_scaling_shows(measured: Measure) -> None:
    """Fewer bits leave the arithmetic as it is and cut what is read.

    What is bound by memory then speeds up with the bytes, what is bound by compute does not. A case counts
    measured("cases of device, phase and length with the predicted bound", matched / cases, at_least=0.9)
    """
    matched, cases = 0, 0
    for name, phases in PUBLISHED.items():
        device = profile.find(name)
        for phase, lengths in phases.items():
            for length, (four, sixteen) in lengths.items():
                if phase == "decode":
                    # The test generates from nothing up to the length: half of it is the mean context.
                    labels = [decode_label(LLAMA, form, device, context=length // 2) for form in (F16, Q4)]
                else:
                    labels = [prefill_label(LLAMA, form, device, length) for form in (F16, Q4)]
                ratio = labels[0].seconds["memory"] / labels[1].seconds["memory"]
                shown = "memory" if math.log(four / sixteen) > math.log(ratio) / 2 else "compute"
                matched += all(label.bound == shown for label in labels)
                cases += 1
    assert cases == 46
    measured(
        "cases of device, phase and length whose bound is the predicted one", matched / cases, at_least=0.9
    )
