"""How much of an array's memory is there, as the system's page tables have it."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

_PRESENT = np.uint64(1 << 63)


def resident_bytes(memory: npt.NDArray[Any]) -> int:
    """Of the pages that the array lies in, those that this process has mapped now."""
    first = memory.ctypes.data // mmap.PAGESIZE
    last = -(-(memory.ctypes.data + memory.nbytes) // mmap.PAGESIZE)
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(8 * first)
        entries = np.frombuffer(file.read(8 * (last - first)), np.uint64)
    assert len(entries) == last - first
    return int(np.count_nonzero(entries & _PRESENT)) * mmap.PAGESIZE
