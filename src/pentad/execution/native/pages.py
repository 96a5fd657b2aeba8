"""Pages of the packed file: brought and given back without a word to the kernels that read there."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_POPULATE_READ: Final = 22
"""MADV_POPULATE_READ of Linux 5.14 and later."""

Span = tuple[int, int]
"""First byte and the one behind the last, in the packed weights."""
Places = Mapping[tuple[int, str], Span]
"""Layer and name of every packed matrix, to where it lies."""


class Pages:
    """Pages of a read-only mapping, brought and given back without a word to the kernels that read there."""

    def __init__(self, memory: npt.NDArray[np.uint8]) -> None:
        self._memory = memory
        self._libc: Any = ctypes.CDLL(None, use_errno=True)
        self._libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._populates = True

    def bring(self, span: Span) -> None:
        """Reads them, and returns when they are there. Lets go of the interpreter meanwhile."""
        begin, end = self._memory.ctypes.data + span[0], self._memory.ctypes.data + span[1]
        begin -= begin % mmap.PAGESIZE
        if self._populates and self._libc.madvise(begin, end - begin, _POPULATE_READ):
            self._populates = False  # an older kernel
        if not self._populates:
            int(self._memory[span[0] : span[1] : mmap.PAGESIZE].sum(dtype=np.uint64))

    def drop(self, span: Span) -> None:
        """Gives back those that lie in the span whole."""
        begin, end = self._memory.ctypes.data + span[0], self._memory.ctypes.data + span[1]
        begin = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
        end -= end % mmap.PAGESIZE
        if end > begin:
            self._libc.madvise(begin, end - begin, mmap.MADV_DONTNEED)
