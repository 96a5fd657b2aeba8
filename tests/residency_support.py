"""Weights to hold, and what holding them takes: where a spawned process can import it too."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import numpy as np
import psutil

from pentad.choice import Choice, build
from pentad.execution.native.packed import PackedCache, mapped_file
from pentad.execution.residency.base import Bytes, WeightResidency

SIZE = 16 << 20


def checksum(data: Bytes) -> int:
    return int(data[:: 1 << 16].sum(dtype=np.uint64))


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Made-up weights of 16 MB, kept in a folder or nowhere."""

    folder: pathlib.Path | None
    model: str = "m"
    nbytes: int = SIZE

    def fill(self, memory: Bytes) -> None:
        memory.reshape(-1, 1 << 12)[:] = np.arange(1 << 12, dtype=np.uint8)

    def mapped(self) -> tuple[Bytes, bool] | None:
        if self.folder is None:
            return None
        cache = PackedCache(folder=self.folder, identity="a")
        return cache.file(self.model, "d", self.nbytes, self.fill, checksum)


def strategy(name: str) -> WeightResidency:
    return build("residency", Choice(name=name))  # type: ignore[no-any-return]


def own_bytes() -> int:
    """Memory of this process that no other shares and no file backs."""
    maps = psutil.Process().memory_maps(grouped=False)
    return sum(part.private_dirty for part in maps)


def measured_takings(name: str, packed: pathlib.Path) -> list[tuple[int, int, int, bool]]:
    """Bytes that holding took, held and mapped bytes as told, whether a file is behind: packed, then not."""
    takings = []
    for folder in (packed, None):
        strategy(name).hold(Packed(folder=packed))  # the file is there
        before = own_bytes()
        held = strategy(name).hold(Packed(folder=folder))
        checksum(held.memory)
        is_file = mapped_file(held.memory) is not None
        takings.append((own_bytes() - before, held.held_bytes, held.mapped_bytes, is_file))
        del held
    return takings
