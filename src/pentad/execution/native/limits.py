"""Limits of this machine, measured with the instructions that the kernels use."""

from __future__ import annotations

import statistics
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.execution.native.library import KernelLibrary

_PASSES: Final = 7


def read_bytes_per_s(library: KernelLibrary, memory: npt.NDArray[np.uint8], threads: int) -> float:
    """Bytes of `memory` that all threads together read per second, over and over; the median pass."""
    rates = np.zeros(_PASSES)
    library.functions.pentad_probe_read(
        memory.ctypes.data, memory.nbytes, threads, _PASSES, rates.ctypes.data
    )
    return statistics.median(rates.tolist())


def operations_per_s(library: KernelLibrary, threads: int) -> dict[str, float]:
    """Multiplications and additions per second of all threads, by number format; the best pass.

    `int8` dot products, and `bf16` on tiles where the library was built for them. A model must have
    been created before, which asks the system for the use of tiles.
    """
    found = {}
    for name, tiles in (("int8", 0), ("bf16", 1)):
        rates = np.zeros(_PASSES)
        library.functions.pentad_probe_products(threads, tiles, _PASSES, rates.ctypes.data)
        if rates.max() > 0:
            found[name] = float(rates.max())
    return found
