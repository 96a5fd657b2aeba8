"""Layers under a bound of memory: what it does not hold is read as it is needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

from pentad.execution.residency.base import (
    PACKED_FILE,
    HeldWeights,
    LayerWindow,
    PackedWeights,
    ResidencyCost,
    ResidencyRates,
    decided,
)
from pentad.execution.residency.mapped import Mapped

_MIB: Final = 2**20
_LEAST_SHARE: Final = 0.25
"""Of the weights, what the least window takes of most models: the head, and a layer or two beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """Keeps as many layers as a bound of memory holds, and reads the others from the packed file.

    A thread of its own reads the next ones while one is computed; what was computed is given back at once.
    Layers that stay and layers that pass alternate, so that reading has the time of both. All tokens of a
    step share what it reads, so steps of many sequences pay little for it. Where no packed file can be kept,
    the weights lie in memory of the process.

    Exactness: lossless.
    Cost: the bytes of what passes, in every step, as far as computing does not hide them.
    Source: Li et al. 2024 (TPI-LLM), section 3.3, sliding window; and Aminabadi et al. 2022 (DeepSpeed
    Inference), section 6, layers streamed to where they are computed. Ours keeps what fits, the window of
    TPI-LLM slides over all layers.
    """

    name: ClassVar[str] = "streamed"
    exactness: ClassVar[Literal["lossless"]] = "lossless"
    needs: ClassVar[frozenset[str]] = frozenset({PACKED_FILE})
    memory_mib: int = 0
    """Memory for weights in MiB; 0: the least with which the model runs."""
    ahead: int = 1
    """Layers that are read while one is computed."""

    def hold(self, weights: PackedWeights) -> HeldWeights:
        held = Mapped().hold(weights)
        constraint = held.decision.constraint
        if held.mapped_bytes:
            bound = f"{self.memory_mib} MiB" if self.memory_mib else "the least memory"
            constraint = f"read in every step as far as {bound} does not hold them"
        return replace(
            held,
            decision=decided(
                self.name, held_bytes=held.held_bytes, mapped_bytes=held.mapped_bytes, constraint=constraint
            ),
            window=LayerWindow(memory_bytes=self.memory_mib * _MIB or None, ahead=self.ahead)
            if held.mapped_bytes
            else None,
        )

    def cost(self, weight_bytes: int, rates: ResidencyRates) -> ResidencyCost:
        memory = min(weight_bytes, max(self.memory_mib * _MIB, int(weight_bytes * _LEAST_SHARE)))
        read_s = (weight_bytes - memory) / rates.disk_bytes_per_s
        return ResidencyCost(memory_bytes=memory, start_s=0.0, step_s=read_s)
