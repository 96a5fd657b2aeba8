"""Plain PyTorch: every op that the records tell and that is computed at all, on any device."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad import registry
from pentad.execution.form import ModelForm
from pentad.execution.kernels.base import (
    ENGINE,
    GPU,
    PROCESSES,
    STAGES,
    WEIGHT_FORMATS,
    KernelCost,
    cost_of,
)
from pentad.execution.runner import Runner
from pentad.execution.spec import ModelSpec
from pentad.execution.support import first_unsupported
from pentad.execution.weights import WeightSource
from pentad.types import Exactness

TORCH_REMEDY = "pip install 'pentad[torch]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """Computes in PyTorch, on the CPU or a GPU; the reference that all others are held against."""

    name: ClassVar[str] = "torch"
    exactness: ClassVar[Exactness] = "lossless"
    needs: ClassVar[frozenset[str]] = frozenset({"torch"})
    gives: ClassVar[frozenset[str]] = ENGINE | {WEIGHT_FORMATS, STAGES, PROCESSES, GPU}
    bound_nats: ClassVar[float] = 0.0

    def absent(self) -> str | None:
        return None if importlib.util.find_spec("torch") else f"PyTorch is not installed: {TORCH_REMEDY}"

    def unsupported(self, spec: ModelSpec, weights: WeightSource) -> str | None:  # noqa: ARG002
        return first_unsupported(spec)

    def cost(self, spec: ModelSpec, weights: WeightSource) -> KernelCost:  # noqa: ARG002
        bits = 8 * registry.load("runner", "torch").kv_element_bytes(spec)
        return cost_of(spec, ModelForm(weight_bits=bits, kv_bits=bits))

    def load(self, spec: ModelSpec, weights: WeightSource, **options: Any) -> Runner:
        runner: Runner = registry.load("runner", "torch").load(spec, weights, **options)
        return runner
