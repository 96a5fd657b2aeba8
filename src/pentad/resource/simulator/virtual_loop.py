"""VirtualLoop: an event loop whose time jumps to the next timer, once nothing else is left to do."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """The same code as live, at the pace of the machine: waiting costs nothing.

    While a thread works on something that was counted, as all work of executors is, time stands.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.outside = 0
        """Pieces of work that threads have."""
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        return self.counted(super().run_in_executor(executor, func, *args))

    def counted(self, work: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """The same future; time stands until it is done."""
        self.outside += 1
        work.add_done_callback(self._done)
        return work

    def _done(self, _: asyncio.Future[Any]) -> None:
        self.outside -= 1


class _Jumping(selectors.DefaultSelector):
    """Polls; where nothing is ready and no thread works, the time until the next timer has passed."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or timeout == 0:
            return found
        if self._loop.outside or timeout is None:
            return super().select(0.1)
        self._loop.now_s += timeout
        return found
