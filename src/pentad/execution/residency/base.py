"""WeightResidency: where weights lie, how many bytes of which memory they take, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from pentad.types import Decision

Bytes = npt.NDArray[np.uint8]
PACKED_FILE = "packed file"
"""A need: a folder in which weights are kept as the kernels read them. The native runner has such files."""


class PackedWeights(Protocol):
    """The weights of one model as a runner can provide them."""

    @property
    def model(self) -> str: ...

    @property
    def nbytes(self) -> int: ...

    def fill(self, memory: Bytes) -> None:
        """Packs them into memory of `nbytes`, from the model's own file."""
        ...

    def mapped(self) -> tuple[Bytes, bool] | None:
        """Their packed file, mapped read-only, and whether an earlier start had made it.

        None where there is no folder for it, or it cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWindow:
    """Weights of a mapped file that are in memory only as far as a bound allows."""

    memory_bytes: int | None
    """None: the least with which a step can be computed."""
    ahead: int
    """Layers that are read while one is computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldWeights:
    """Weights in their place."""

    memory: Bytes
    """Must outlive the model."""
    found: bool
    """Whether an earlier start's packed file was used."""
    held_bytes: int
    """Memory that is the process's own until the model is closed."""
    mapped_bytes: int
    """Pages of a file: the system keeps in memory what it has room for, once for all processes."""
    decision: Decision
    window: LayerWindow | None = None
    """What the runner keeps to, step by step; None: the system keeps what it has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidencyRates:
    """What the machine offers."""

    free_bytes: int
    disk_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidencyCost:
    """What a residency takes of a machine whose packed file is ready."""

    memory_bytes: int
    """Least memory with which the model can be loaded."""
    start_s: float
    """Until the first step may begin."""
    step_s: float
    """Added to each step of one token, which reads all weights, once the caches are warm."""


class WeightResidency(Protocol):
    """Decides which weights are where and when (coverage.md, interface 17)."""

    @property
    def name(self) -> str: ...

    @property
    def exactness(self) -> Literal["lossless", "bounded", "lossy"]:
        """`lossless`: the same bits reach the kernels."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What must be there: `packed file` or nothing."""
        ...

    def hold(self, weights: PackedWeights) -> HeldWeights:
        """Puts weights into their place. Raises Infeasible where there is no room, with a remedy."""
        ...

    def cost(self, weight_bytes: int, rates: ResidencyRates) -> ResidencyCost:
        """Memory and seconds for so many bytes of weights, of the right order."""
        ...


def decided(policy: str, *, held_bytes: int, mapped_bytes: int, constraint: str | None) -> Decision:
    """The record of where weights were put."""
    return Decision(
        layer="execution",
        policy=policy,
        subject="weights",
        chosen="mapped" if mapped_bytes else "memory",
        candidates=(("memory", float(held_bytes)), ("mapped", float(mapped_bytes))),
        constraint=constraint,
    )
