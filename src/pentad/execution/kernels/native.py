"""The native kernels, one set of ops for each instruction set that they are built for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.execution.kernels.base import (
    BLOCK_COPIES,
    CODED_CACHE,
    ENGINE,
    PACKED_WEIGHTS,
    STAGES,
    KernelCost,
    cost_of,
)
from pentad.execution.native.choice import unsupported_geometry, unsupported_storage
from pentad.execution.native.library import NEEDS, built, cpu_flags
from pentad.execution.runner import Runner
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import WeightSource
from pentad.types import Exactness


@dataclass(frozen=True, slots=True, kw_only=True)
class _Native:
    """Weights in blocks of codes, activations in 8 bits, keys and values in bfloat16 or codes."""

    name: ClassVar[str]
    exactness: ClassVar[Exactness] = "bounded"
    needs: ClassVar[frozenset[str]] = frozenset()
    gives: ClassVar[frozenset[str]] = ENGINE | {PACKED_WEIGHTS, CODED_CACHE, BLOCK_COPIES, STAGES}
    bound_nats: ClassVar[float] = 0.003
    """8-bit activations cost 0.0002 to 0.0012 on random models."""

    def absent(self) -> str | None:
        if self.name not in built():
            return "it is not built: install a C++20 compiler and run scripts/setup"
        missing = sorted(self.needs - cpu_flags())
        return f"the CPU lacks {', '.join(missing)}" if missing else None

    def unsupported(self, spec: ModelSpec, weights: WeightSource) -> str | None:
        return unsupported_storage(weights) or unsupported_geometry(spec)

    def cost(self, spec: ModelSpec, weights: WeightSource) -> KernelCost:
        from pentad.execution.native.runner import packed_form

        return cost_of(spec, packed_form(spec, weights, "auto"))

    def load(self, spec: ModelSpec, weights: WeightSource, **options: Any) -> Runner:
        from pentad.execution.native.runner import NativeRunner

        return NativeRunner.load(spec, weights, **({"kernels": self.name} | options))


class Amx(_Native):
    """Products and attention on AMX tiles, prompts in bfloat16 (x86, Sapphire Rapids and later)."""

    name = "amx"
    needs = NEEDS["amx"]


class Avx512(_Native):
    """Byte products of AVX-512 VNNI and bfloat16 products of attention (x86, Cooper Lake, Zen 4)."""

    name = "avx512"
    needs = NEEDS["avx512"]


class Avx512Vnni(_Native):
    """Byte products of AVX-512 VNNI (x86, Cascade Lake, Ice Lake)."""

    name = "avx512vnni"
    needs = NEEDS["avx512vnni"]


class AvxVnni(_Native):
    """Byte products of AVX-VNNI in 256 bits (x86, Alder Lake and later)."""

    name = "avxvnni"
    needs = NEEDS["avxvnni"]


class Avx2(_Native):
    """Widening products of AVX2 (x86, Haswell and later)."""

    name = "avx2"
    needs = NEEDS["avx2"]


class Neon(_Native):
    """Dot products of Armv8.2 (phones, Graviton, Apple)."""

    name = "neon"
    needs = NEEDS["neon"]


class Portable(_Native):
    """Plain C++, what any compiler makes of it."""

    name = "portable"
    needs = NEEDS["portable"]
