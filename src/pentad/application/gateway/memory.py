"""Giving memory back: the C library keeps what large requests have freed until it is asked for it."""

from __future__ import annotations

import asyncio
import ctypes
import gc

LARGE_BYTES = 2**20
"""A request of this size is worth asking for."""
_PAUSE_S = 1.0
_M_ARENA_MAX = -8
_ARENAS = 2
"""Heaps of the C library; by default it makes 8 per core, each of which keeps what was freed in it."""


class Memory:
    """Asks for freed memory once large requests have ended; at most once a second, off the event loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def give_back(self) -> None:
        """Soon gives the system what is no longer used."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._soon(), name="pentad-memory")

    async def close(self) -> None:
        """Forgets what was going to be asked."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _soon(self) -> None:
        await asyncio.sleep(_PAUSE_S)
        gc.collect(1)
        await asyncio.to_thread(trim)


def trim() -> None:
    """Gives the system what the C library has kept; does nothing where it cannot."""
    if (give := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        give(0)


def few_arenas() -> None:
    """Has the C library of this process share few heaps among threads; for the start of a server."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
