"""Devices and models that several resource tests share."""

from __future__ import annotations

from pentad.execution.device import DeviceProfile, MemoryTier
from pentad.execution.spec import Rope
from pentad.execution.uniform import uniform_spec
from pentad.resource.cost import software_units

LLAMA_1B = uniform_spec(
    name="llama-3.2-1b",
    family="llama",
    vocab_size=128_256,
    layers=16,
    width=2048,
    heads=32,
    kv_heads=8,
    head_dim=64,
    ffn_width=8192,
    context_length=131_072,
    positions=Rope(base=500_000.0, dim=64),
)

LLAMA_SMALL = uniform_spec(
    name="small",
    family="llama",
    vocab_size=32_000,
    layers=8,
    width=512,
    heads=8,
    kv_heads=2,
    head_dim=64,
    ffn_width=1536,
    context_length=8192,
    positions=LLAMA_1B.blocks[0].mixer.positions,  # type: ignore[union-attr]
)

TINY = uniform_spec(
    name="tiny",
    family="llama",
    vocab_size=1000,
    layers=4,
    width=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn_width=128,
    context_length=2048,
    positions=Rope(dim=16),
)

GPU = DeviceProfile(
    name="gpu",
    kind="gpu",
    source="published",
    memory=(MemoryTier(name="hbm", capacity_bytes=16 * 2**30, read_bytes_per_s=1e12),),
    flops_per_s={"bf16": 100e12},
)


def measured_device() -> DeviceProfile:
    """A slow CPU as `pentad profile` would describe it, with round numbers."""
    points = tuple(
        {"m": m, "n": n, "k": 1024, "bits": 16, "seconds": 2e-5 + n * 1024 * max(2 / 2e10, 2 * m / 5e11)}
        for m in (1, 8, 64, 512)
        for n in (64, 1024, 16_384)
    )
    return DeviceProfile(
        name="box",
        kind="cpu",
        source="measured",
        memory=(
            MemoryTier(name="l2", capacity_bytes=2**21, read_bytes_per_s=4e10),
            MemoryTier(name="main", capacity_bytes=8 * 2**30, read_bytes_per_s=1e10),
            MemoryTier(name="disk", capacity_bytes=2**40, read_bytes_per_s=1e9),
        ),
        flops_per_s={"bf16": 5e11, "f32": 1e11},
        bandwidth_by_working_set=((2**20, 4e10), (2**30, 1e10)),
        gemm_points=points,
        cores=4,
        extra=dict.fromkeys(software_units(TINY), 1e-11)
        | {
            "step_overhead_s": 3e-4,
            "layer_overhead_s": 1e-4,
            "attention_call_s": 8e-5,
            "sequence_overhead_s": 1e-5,
            "software_bits": 16.0,
        },
    )
