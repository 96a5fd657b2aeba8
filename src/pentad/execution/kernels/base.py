"""Kernel: a set of op implementations that a runner computes with, and what it costs and cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from pentad.execution.form import ModelForm
from pentad.execution.runner import Runner
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import WeightSource
from pentad.types import Exactness


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCost:
    """What a model takes in memory on these kernels."""

    weight_bytes: float
    kv_bytes_per_token: float


PACKED_WEIGHTS: Final = "weights in a packed file"
WEIGHT_FORMATS: Final = "weights in a format of choice"
CODED_CACHE: Final = "KV cache of codes"
BLOCK_COPIES: Final = "KV blocks that can be copied out"
STAGES: Final = "layers of a model in processes one behind the other"
PROCESSES: Final = "sharing of a model among processes"
GPU: Final = "GPU"
VERIFIED_DRAFTS: Final = "drafts verified in one step"
DROPPED_ENTRIES: Final = "entries dropped from a KV cache"
ADAPTERS: Final = "adapters beside their base"
ENGINE: Final = frozenset({VERIFIED_DRAFTS, DROPPED_ENTRIES, ADAPTERS})
"""What every kernel of our own engine gives."""


class Kernel(Protocol):
    """The ops of a step (program.py) for one kind of machine (coverage.md, interface 16)."""

    @property
    def name(self) -> str: ...

    @property
    def exactness(self) -> Exactness:
        """Against the plain ops on the same stored weights."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """CPU flags, by their Linux names, or packages."""
        ...

    @property
    def gives(self) -> frozenset[str]:
        """What choices of other phases may need of it, of the names above."""
        ...

    @property
    def bound_nats(self) -> float:
        """Mean divergence of its distributions of the next token from the plain ones', at most."""
        ...

    def absent(self) -> str | None:
        """What this machine lacks for it; None: it can be loaded here."""
        ...

    def unsupported(self, spec: ModelSpec, weights: WeightSource) -> str | None:
        """The part of a model that it has no op for; None: it has all."""
        ...

    def cost(self, spec: ModelSpec, weights: WeightSource) -> KernelCost:
        """Bytes of weights and cache in the form that it computes with, without loading them."""
        ...

    def load(self, spec: ModelSpec, weights: WeightSource, **options: Any) -> Runner:
        """A runner that computes with it.

        Args:
            options: of the runner (`NativeRunner.load`, `TorchRunner.load`).

        Raises:
            Incompatible: what `absent` and `unsupported` tell.
            BadModelFile, Infeasible: as the runners' `load`.
        """
        ...


def cost_of(spec: ModelSpec, form: ModelForm) -> KernelCost:
    """The cost of a model whose weights and cache have that precision."""
    head = 0 if form.head_bits is None else spec.vocab_size * spec.width
    weight_bytes = form.weight_bytes(spec.parameters - head)
    if form.head_bits is not None:
        weight_bytes += head * form.head_bits / 8
    return KernelCost(weight_bytes=weight_bytes, kv_bytes_per_token=form.kv_bytes(spec, 1))
