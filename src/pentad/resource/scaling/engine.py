"""ScaledEngine: an engine of this machine that is loaded and unloaded while requests go on coming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Literal, cast

from pentad.errors import Overloaded, PentadError, Unavailable
from pentad.execution.loop import EngineDriver
from pentad.execution.request import StepOutput, TokenRequest

_GAUGES = ("running", "waiting", "kv_blocks_held", "kv_usage_fraction", "kv_claimed_fraction")
"""Of an engine that is not loaded: 0."""


class ScaledEngine:
    """An EngineDriver over one that comes and goes; requests wait while it is not there.

        spare --load--> starting --> ready --unload--> draining --last request ends--> spare

    Used from one event loop. Counters begin anew with each load.

    Args:
        driver: the engine, loaded.
        load: loads it again; runs in a thread.
        max_waiting: requests that wait for a load before others are refused.
        wake: called when a request begins to wait.
    """

    def __init__(
        self,
        driver: EngineDriver,
        load: Callable[[], EngineDriver],
        *,
        max_waiting: int,
        wake: Callable[[], None],
    ) -> None:
        self.elsewhere = driver.elsewhere
        self.clock = driver.clock
        self.max_sequence_tokens = driver.max_sequence_tokens
        self.state: Literal["spare", "starting", "ready", "draining"] = "ready"
        self.waiting = 0
        """Requests that wait for it to be loaded."""
        self.running = 0
        """Requests that are with the engine."""
        self.arrived = 0
        self.load_s = 0.0
        """What the latest load took."""
        self._driver: EngineDriver | None = driver
        self._load = load
        self._max_waiting = max_waiting
        self._wake = wake
        self._changed = asyncio.Condition()
        self._failure: PentadError | None = None
        self._loads = 0
        self._last: dict[str, float] = {}

    def refuse_if_full(self) -> None:
        """See EngineDriver."""
        if self._driver is not None and self.state == "ready":
            self._driver.refuse_if_full()
        elif self.waiting >= self._max_waiting:
            raise Overloaded(
                f"{self.waiting} requests wait for the model to be loaded", hint="try again in a moment"
            )

    async def generate(self, requests: Sequence[TokenRequest]) -> AsyncGenerator[StepOutput, None]:
        """See EngineDriver; waits until the engine is loaded. Raises Unavailable where that fails."""
        self.arrived += 1
        driver = await self._loaded()
        self.running += 1
        try:
            outputs = cast("AsyncGenerator[StepOutput, None]", driver.generate(requests))
            async with aclosing(outputs):
                async for output in outputs:
                    yield output
        finally:
            self.running -= 1
            if not self.running:
                await self._tell()

    async def _loaded(self) -> EngineDriver:
        """The engine, once it takes requests."""
        if self.state == "ready" and self._driver is not None:
            return self._driver
        loads = self._loads
        self.waiting += 1
        self._wake()
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self.state == "ready" or self._loads > loads)
        finally:
            self.waiting -= 1
        if self.state != "ready" or self._driver is None:
            failure = self._failure or Unavailable("the model was unloaded again")
            raise Unavailable(f"the model cannot be loaded: {failure.message}", hint=failure.hint)
        return self._driver

    async def load(self) -> None:
        """Loads the engine, or keeps one that drains. What fails is told to those who wait."""
        if self.state == "draining":
            self.state = "ready"
        elif self.state == "spare":
            self.state, begin_s = "starting", self.clock()
            try:
                self._driver = await asyncio.to_thread(self._load)
                self.state, self._failure = "ready", None
            except PentadError as error:
                self.state, self._failure = "spare", error
            except BaseException:
                self.state = "spare"
                raise
            finally:
                self._loads += 1
                self.load_s = self.clock() - begin_s
        await self._tell()

    async def unload(self) -> None:
        """Takes no more requests, waits for those that are there, and gives the memory back."""
        if self.state != "ready":
            return
        self.state = "draining"
        async with self._changed:
            await self._changed.wait_for(lambda: not self.running or self.state != "draining")
        driver = self._driver
        if self.state != "draining" or driver is None:
            return  # wanted again
        stats = driver.stats()
        self._last = stats | {name: 0.0 for name in _GAUGES if name in stats}
        self._driver = None
        await driver.close(0.0)
        self.state = "spare"
        await self._tell()

    async def give_up(self, reason: str) -> None:
        """Refuses those who wait."""
        self._failure = Unavailable(reason)
        self._loads += 1
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def check(self) -> str | None:
        """See EngineDriver; an engine that is not loaded is healthy unless its last load failed."""
        if self._driver is not None:
            return self._driver.check()
        return None if self._failure is None else f"the model cannot be loaded: {self._failure.message}"

    def stats(self) -> dict[str, float]:
        """See EngineDriver; what waits for a load counts as waiting; `load_s` is what a load takes."""
        found = dict(self._last) if self._driver is None else self._driver.stats()
        load_s = 0.0 if self.state == "ready" else self.load_s
        return found | {"waiting": found.get("waiting", 0.0) + self.waiting, "load_s": load_s}

    async def close(self, drain_s: float) -> None:
        """See EngineDriver."""
        driver, self._driver, self.state = self._driver, None, "spare"
        self._loads += 1
        self._failure = Unavailable("the server stops")
        await self._tell()
        if driver is not None:
            await driver.close(drain_s)
