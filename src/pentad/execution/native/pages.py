"""Pages of the packed file: brought and given back without a word to the kernels that read there."""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

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


class Arrival(Protocol):
    """Pages on their way."""

    @property
    def here(self) -> bool: ...

    def wait(self) -> float:
        """Seconds that were waited for them."""
        ...


@dataclass(slots=True)
class _Coming:
    future: Future[None] | None

    @property
    def here(self) -> bool:
        return self.future is None or self.future.done()

    def wait(self) -> float:
        if self.future is None or self.future.done():
            return 0.0
        began_s = time.monotonic()
        self.future.result()
        return time.monotonic() - began_s


@dataclass(slots=True)
class _Read:
    took_s: float

    @property
    def here(self) -> bool:
        return True

    def wait(self) -> float:
        took_s, self.took_s = self.took_s, 0.0
        return took_s


class PageReader:
    """Reads pages, on a thread of its own what is brought ahead."""

    def __init__(self, memory: npt.NDArray[np.uint8], *, name: str) -> None:
        self._pages = Pages(memory)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def bring(self, spans: Sequence[Span], *, ahead: bool) -> Arrival:
        """Begins; what is not `ahead` is there when this returns, and its `wait` says how long that took."""
        if ahead:
            return _Coming(self._thread.submit(self._read, spans))
        began_s = time.monotonic()
        self._read(spans)
        return _Read(time.monotonic() - began_s)

    def drop(self, spans: Sequence[Span]) -> None:
        """Gives them back."""
        for span in spans:
            self._pages.drop(span)

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()

    def _read(self, spans: Sequence[Span]) -> None:
        for span in spans:
            self._pages.bring(span)
