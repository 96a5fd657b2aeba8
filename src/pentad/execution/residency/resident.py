"""All weights in memory of the process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pentad.errors import Infeasible
from pentad.execution.memory import free_bytes
from pentad.execution.native.packed import anonymous, forget_pages
from pentad.execution.residency.base import (
    HeldWeights,
    PackedWeights,
    ResidencyCost,
    ResidencyRates,
    decided,
)

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """Copies all weights into memory that is the process's own, so that no step waits for a disk.

    A packed file of an earlier start, or one that this start makes where there is a folder, is read once
    and let go. Other processes with the same model hold their own copy.
    """

    name: ClassVar[str] = "resident"
    exactness: ClassVar[Literal["lossless"]] = "lossless"
    needs: ClassVar[frozenset[str]] = frozenset()

    def hold(self, weights: PackedWeights) -> HeldWeights:
        free = free_bytes()
        if weights.nbytes > free:
            raise Infeasible(
                f"weights of model {weights.model!r} take {weights.nbytes / GIB:.2f} GiB, "
                f"{free / GIB:.2f} GiB are free",
                hint="set --residency mapped, or take a smaller model",
                param="residency",
            )
        file = weights.mapped()
        memory = anonymous(weights.nbytes)
        if file is None:
            weights.fill(memory)
        else:
            memory[:] = file[0]
            forget_pages(file[0])
        return HeldWeights(
            memory=memory,
            found=file is not None and file[1],
            held_bytes=weights.nbytes,
            mapped_bytes=0,
            decision=decided(self.name, held_bytes=weights.nbytes, mapped_bytes=0, constraint=None),
        )

    def cost(self, weight_bytes: int, rates: ResidencyRates) -> ResidencyCost:
        return ResidencyCost(
            memory_bytes=weight_bytes, start_s=weight_bytes / rates.disk_bytes_per_s, step_s=0.0
        )
