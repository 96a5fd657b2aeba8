"""Weights in a file that the system pages in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pentad.execution.native.packed import anonymous
from pentad.execution.residency.base import (
    PACKED_FILE,
    HeldWeights,
    PackedWeights,
    ResidencyCost,
    ResidencyRates,
    decided,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """Maps the packed file: pages come in when they are first read, and go when others need the memory.

    Processes with the same model share the pages. With less memory than weights, each step reads what did
    not stay from the disk. Where the file cannot be kept, the weights lie in memory of the process.
    """

    name: ClassVar[str] = "mapped"
    exactness: ClassVar[Literal["lossless"]] = "lossless"
    needs: ClassVar[frozenset[str]] = frozenset({PACKED_FILE})

    def hold(self, weights: PackedWeights) -> HeldWeights:
        file = weights.mapped()
        if file is None:
            memory = anonymous(weights.nbytes)
            weights.fill(memory)
            decision = decided(
                self.name, held_bytes=weights.nbytes, mapped_bytes=0, constraint="no packed file can be kept"
            )
            return HeldWeights(
                memory=memory, found=False, held_bytes=weights.nbytes, mapped_bytes=0, decision=decision
            )
        memory, found = file
        return HeldWeights(
            memory=memory,
            found=found,
            held_bytes=0,
            mapped_bytes=weights.nbytes,
            decision=decided(self.name, held_bytes=0, mapped_bytes=weights.nbytes, constraint=None),
        )

    def cost(self, weight_bytes: int, rates: ResidencyRates) -> ResidencyCost:
        missing = max(0, weight_bytes - rates.free_bytes)
        # Reading in a circle through a least-recently-used cache finds nothing of what it reads next.
        reread = weight_bytes if missing else 0
        return ResidencyCost(memory_bytes=0, start_s=0.0, step_s=reread / rates.disk_bytes_per_s)
