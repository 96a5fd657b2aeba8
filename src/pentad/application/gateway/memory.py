"""Giving memory back: the C library keeps what large requests have freed until it is asked for it."""

from __future__ import annotations

import asyncio
import gc

from pentad.application.heap import trim

LARGE_BYTES = 2**20
"""A request of this size is worth asking for."""
_PAUSE_S = 1.0


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
