"""ModelSlot: one model that is loaded and unloaded while requests go on coming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from pentad.errors import Overloaded, PentadError, Unavailable
from pentad.resource.eviction.base import Resident
from pentad.types import Clock

T = TypeVar("T")
State = Literal["unloaded", "queued", "loading", "loaded", "draining", "unloading"]
RETRY_S: Final = 5.0
"""How long a load that failed is not tried again."""
_LOAD_BYTES_PER_S: Final = 250e6
_START_S: Final = 1.5
"""What a first load is expected to take: the process, and the weights at the pace of a plain disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """What a loaded model takes."""

    weights_bytes: int
    kv_bytes: int = 0
    process_bytes: int = 0
    """Of the process that it gets, beside the model."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.process_bytes

    def __str__(self) -> str:
        parts = {"weights": self.weights_bytes, "KV cache": self.kv_bytes, "process": self.process_bytes}
        return " + ".join(f"{name} {size / 1e6:.0f} MB" for name, size in parts.items() if size)


class Pool(Protocol):
    """Who decides when a slot is loaded."""

    @property
    def clock(self) -> Clock: ...

    def want(self, slot: ModelSlot[Any]) -> None:
        """The slot shall be loaded as soon as there is room. Raises Infeasible where there never is."""
        ...

    def changed(self, slot: ModelSlot[Any]) -> None:
        """A request has ended, or nobody waits any more."""
        ...


class ModelSlot(Generic[T]):
    """A place for one model; who needs it holds a lease, during which it stays loaded.

        unloaded -> queued -> loading -> loaded -> draining -> unloading -> unloaded

    Used from one event loop.

    Args:
        name: of the model.
        need: of memory.
        load: loads it; runs in a thread.
        unload: gives its memory back.
        keep_s: seconds that it stays loaded without requests; None: until others need the memory.
        max_waiting: requests that wait for a load before others are refused.
    """

    def __init__(
        self,
        pool: Pool,
        name: str,
        *,
        need: MemoryNeed,
        load: Callable[[], T],
        unload: Callable[[T], Awaitable[None]],
        keep_s: float | None = None,
        max_waiting: int = 256,
    ) -> None:
        self.name = name
        self.need = need
        self.load = load
        self.unload = unload
        self.keep_s = keep_s
        self.state: State = "unloaded"
        self.value: T | None = None
        """While it is loaded."""
        self.users = 0
        self.uses = 0
        """Leases since it was loaded."""
        self.waiting = 0
        self.wanted_s = self.began_s = self.used_s = 0.0
        """When it was asked for, its load began, and its latest request ended."""
        self.load_s = _START_S + need.weights_bytes / _LOAD_BYTES_PER_S
        """What loading takes: as measured the last time, else as expected."""
        self.failure: PentadError | None = None
        """Why the latest load failed."""
        self.failed_s = 0.0
        self._pool = pool
        self._max_waiting = max_waiting
        self._loaded: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def lease(self, keep_s: float | Literal["same"] | None = "same") -> AsyncIterator[T]:
        """The loaded model, which stays so meanwhile. Waits for it; cancelled, it no longer does.

        Args:
            keep_s: from now on how long the model stays without requests.

        Raises:
            Infeasible: it does not fit the memory budget, whatever else leaves.
            Overloaded: too many wait already.
            Unavailable: it cannot be loaded, with the reason.
        """
        if keep_s != "same":
            self.keep_s = keep_s
        while self.state != "loaded":
            await self._wait()
        assert self.value is not None, "it is loaded"
        self.users += 1
        self.uses += 1
        try:
            yield self.value
        finally:
            self.users -= 1
            self.used_s = self._pool.clock()
            self._pool.changed(self)

    async def _wait(self) -> None:
        """Until the next load has ended. Raises what `lease` does."""
        self._refuse_after_failure()
        if self.waiting >= self._max_waiting:
            raise Overloaded(
                f"{self.waiting} requests wait for model {self.name!r} to be loaded",
                retry_after_s=max(1.0, self.load_s),
                hint="try again in a moment, or raise --max-waiting",
            )
        if self._loaded is None:
            self._loaded = asyncio.get_running_loop().create_future()
            self._loaded.add_done_callback(lambda done: done.cancelled() or done.exception())
        ended = self._loaded
        self.waiting += 1
        try:
            self._pool.want(self)
            if self.state != "loaded":
                await asyncio.shield(ended)
        finally:
            self.waiting -= 1
            if not self.waiting and not ended.done():
                self._pool.changed(self)

    def _refuse_after_failure(self) -> None:
        left_s = self.failed_s + RETRY_S - self._pool.clock()
        if self.failure is not None and left_s > 0:
            raise self._unavailable(self.failure, left_s)

    def _unavailable(self, error: PentadError, retry_after_s: float) -> Unavailable:
        return Unavailable(
            f"model {self.name!r} cannot be loaded: {error.message}",
            retry_after_s=retry_after_s,
            hint=error.hint,
        )

    # What the pool says

    def loaded(self, value: T, now_s: float) -> None:
        """Its load has ended well."""
        self.value, self.state, self.failure, self.uses = value, "loaded", None, 0
        self.load_s, self.used_s = now_s - self.began_s, now_s
        self._end(None)

    def failed(self, error: PentadError, now_s: float) -> None:
        """Its load has failed; who waits is told."""
        self.state, self.failure, self.failed_s = "unloaded", error, now_s
        self._end(self._unavailable(error, RETRY_S))

    def refuse(self, error: PentadError) -> None:
        """It is not going to be loaded; who waits is told."""
        self._end(error)

    def _end(self, error: PentadError | None) -> None:
        ended, self._loaded = self._loaded, None
        if ended is None or ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    # What others ask

    @property
    def clock(self) -> Clock:
        """Of its instants."""
        return self._pool.clock

    def left_s(self) -> float:
        """Seconds until it leaves if nobody asks for it; only where `keep_s` is set."""
        idle_s = 0.0 if self.users else self.clock() - self.used_s
        return max(0.0, (self.keep_s or 0.0) - idle_s)

    def resident(self, now_s: float) -> Resident:
        """How an eviction policy sees it."""
        return Resident(
            name=self.name,
            size_bytes=self.need.total_bytes,
            idle_s=0.0 if self.users else max(0.0, now_s - self.used_s),
            load_s=self.load_s,
            uses=self.uses,
        )

    def progress(self) -> str | None:
        """What its load does, in words; None while there is none."""
        now_s = self._pool.clock()
        match self.state:
            case "queued":
                return f"model {self.name!r} waits for memory, {now_s - self.wanted_s:.0f} s"
            case "loading":
                return (
                    f"model {self.name!r} is loaded, {now_s - self.began_s:.0f} s "
                    f"of about {max(1.0, self.load_s):.0f} s"
                )
            case "draining" | "unloading" if self.waiting:
                return f"model {self.name!r} is unloaded and will be loaded again"
            case _:
                return None
