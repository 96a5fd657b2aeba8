"""ModelPool: the models of one machine within one memory budget."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, TypeVar

from pentad.errors import BackendFailed, Infeasible, PentadError, Unavailable
from pentad.resource.eviction.base import EvictionPolicy, choose_victims
from pentad.resource.model_slot import MemoryNeed, ModelSlot
from pentad.types import Clock, Decision

T = TypeVar("T")
_log = logging.getLogger(__name__)
KEPT_DECISIONS: Final = 1000
PATIENCE_S: Final = 30.0
"""How long a model waits for others to become idle before one of them takes no more requests."""
GRACE_S: Final = 1.0
"""A model whose latest request ended less than this ago is not idle yet: its next one may be on its way."""
_LOADS_AT_ONCE: Final = 2
_THERE: Final = ("loading", "loaded", "draining", "unloading")
"""States in which a model takes memory."""


class ModelPool:
    """Loads models when they are asked for, and unloads others to make room.

        budget |  model a (busy)  |  model b (idle)  |  c: being loaded  |   free   |
                                     may leave           booked already

    What is loaded, being loaded or on its way out counts against the budget. Models that wait for room
    get it in order of arrival; a model that has requests leaves only for one that has waited for
    `patience_s`, and then ends them first. Used from one event loop.

    Args:
        budget_bytes: for all models together.
        policy: who leaves first.
        clock: monotonic.
        patience_s: see above.
        grace_s: how long a model counts as busy behind its latest request.
    """

    def __init__(
        self,
        *,
        budget_bytes: int,
        policy: EvictionPolicy,
        clock: Clock,
        patience_s: float = PATIENCE_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self.budget_bytes = budget_bytes
        self.clock = clock
        self.slots: dict[str, ModelSlot[Any]] = {}
        self.decisions: list[Decision] = []
        """The latest ones."""
        self._policy = policy
        self._patience_s = patience_s
        self._grace_s = grace_s
        self._queue: list[ModelSlot[Any]] = []
        """Who waits for room, in order of arrival."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._threads = ThreadPoolExecutor(_LOADS_AT_ONCE, thread_name_prefix="pentad-loads")
        self._closed = False

    def add(
        self,
        name: str,
        *,
        need: MemoryNeed,
        load: Callable[[], T],
        unload: Callable[[T], Awaitable[None]],
        keep_s: float | None = None,
        max_waiting: int = 256,
    ) -> ModelSlot[T]:
        """A place for one more model, which is not loaded yet; see ModelSlot."""
        slot: ModelSlot[T] = ModelSlot(
            self, name, need=need, load=load, unload=unload, keep_s=keep_s, max_waiting=max_waiting
        )
        self.slots[name] = slot
        return slot

    @property
    def booked_bytes(self) -> int:
        """What loaded models take, and those that come and go."""
        return sum(slot.need.total_bytes for slot in self.slots.values() if slot.state in _THERE)

    async def load(self, name: str) -> None:
        """Loads a model now, even if that failed a moment ago. Raises what `ModelSlot.lease` does."""
        slot = self.slots[name]
        slot.failure = None
        async with slot.lease():
            pass

    async def unload(self, name: str) -> None:
        """Unloads a model once its requests have ended; returns when it is gone."""
        slot = self.slots[name]
        if slot.state == "queued":
            self._queue.remove(slot)
            slot.state = "unloaded"
            slot.refuse(Unavailable(f"model {name!r} was unloaded", hint="ask again to load it"))
        elif slot.state == "loaded":
            slot.state = "draining"
        self._settle()
        while slot.state in ("draining", "unloading"):  # noqa: ASYNC110 - its own requests come first
            await asyncio.sleep(0.02)

    async def remove(self, name: str) -> None:
        """Unloads a model and forgets its place."""
        await self.unload(name)
        self.slots.pop(name, None)

    async def close(self) -> None:
        """Refuses who waits, and unloads everything, whatever still runs."""
        self._closed = True
        stopped = Unavailable("the server stops", retry_after_s=5.0, hint="try again, or another server")
        for timer in self._timers.values():
            timer.cancel()
        for slot in self._queue:
            slot.state = "unloaded"
        self._queue.clear()
        for slot in self.slots.values():
            slot.refuse(stopped)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._leave(slot) for slot in self.slots.values() if slot.value is not None))
        self._threads.shutdown(wait=False)

    # What slots say

    def want(self, slot: ModelSlot[Any]) -> None:
        """See Pool."""
        if self._closed:
            raise Unavailable("the server stops", retry_after_s=5.0, hint="try again, or another server")
        if slot.state == "draining" and not self._queue:
            slot.state = "loaded"  # it was to leave for being idle, which it no longer is
        if slot.state != "unloaded":
            return
        self.check_fits(slot.name, slot.need)
        slot.state, slot.wanted_s = "queued", self.clock()
        self._queue.append(slot)
        self._settle()

    def check_fits(self, name: str, need: MemoryNeed) -> None:
        """Raises Infeasible for a model that is larger than the whole budget."""
        if need.total_bytes > self.budget_bytes:
            raise Infeasible(
                f"model {name!r} needs {need.total_bytes / 1e6:.0f} MB ({need}), "
                f"all models together have {self.budget_bytes / 1e6:.0f} MB",
                hint="raise --memory, lower --kv-bytes, or take a smaller or more quantized model",
            )

    def grow(self, slot: ModelSlot[Any], more_bytes: int) -> None:
        """Books more for a model, or less, whether it is loaded or not.

        Raises Infeasible where the budget does not have it beside what is loaded.
        """
        need = replace(slot.need, weights_bytes=max(0, slot.need.weights_bytes + more_bytes))
        self.check_fits(slot.name, need)
        loaded = slot.state in _THERE
        if loaded and more_bytes > 0 and self.booked_bytes + more_bytes > self.budget_bytes:
            raise Infeasible(
                f"model {slot.name!r} needs {more_bytes / 1e6:.0f} MB more, "
                f"{(self.budget_bytes - self.booked_bytes) / 1e6:.0f} MB are free",
                hint="unload another model, or raise --memory",
            )
        slot.need = need
        self._settle()

    def changed(self, slot: ModelSlot[Any]) -> None:
        """See Pool."""
        if slot.state == "queued" and not slot.waiting:
            self._queue.remove(slot)
            slot.state = "unloaded"
        if slot.state == "loaded" and not slot.users and slot.keep_s is not None:
            self._later(f"idle {slot.name}", slot.keep_s, lambda: self._expire(slot))
        self._settle()

    # What follows

    def _expire(self, slot: ModelSlot[Any]) -> None:
        """Unloads a model that nobody has asked for long enough."""
        idle_s = self.clock() - slot.used_s
        if slot.state != "loaded" or slot.users or slot.waiting or slot.keep_s is None:
            return
        if idle_s < slot.keep_s:
            self._later(f"idle {slot.name}", slot.keep_s - idle_s, lambda: self._expire(slot))
            return
        _log.info("model %s leaves after %.0f s without requests", slot.name, idle_s)
        slot.state = "draining"
        self._settle()

    def _settle(self) -> None:
        """Starts what fits, in order of arrival, and makes room for the first that does not."""
        for slot in self.slots.values():
            if slot.state == "draining" and not slot.users:
                slot.state = "unloading"
                self._begin(self._leave(slot))
        while self._queue:
            slot = self._queue[0]
            missing = slot.need.total_bytes + self.booked_bytes - self.budget_bytes
            if missing > 0:
                self._make_room(slot, missing)
                return
            self._queue.pop(0)
            slot.state, slot.began_s = "loading", self.clock()
            self._begin(self._arrive(slot))

    def _make_room(self, wanted: ModelSlot[Any], missing: int) -> None:
        going = ("draining", "unloading")
        missing -= sum(slot.need.total_bytes for slot in self.slots.values() if slot.state in going)
        if missing <= 0:
            return
        now_s = self.clock()
        patience_s = wanted.wanted_s + self._patience_s - now_s
        residents = [
            slot.resident(now_s)
            for slot in self.slots.values()
            if slot.state == "loaded" and not slot.waiting and (patience_s <= 0 or self._idle(slot))
        ]
        victims, decision = choose_victims(self._policy, residents, missing, wanted=wanted.name, now_s=now_s)
        if not victims:
            if patience_s > 0:
                self._later("room", min(patience_s, self._grace_s), self._settle)
            return
        self.decisions = [*self.decisions, decision][-KEPT_DECISIONS:]
        _log.info("%s leave memory for %s (%s)", decision.chosen, wanted.name, decision.policy)
        for name in victims:
            self.slots[name].state = "draining"
        self._settle()

    def _idle(self, slot: ModelSlot[Any]) -> bool:
        return not slot.users and self.clock() - slot.used_s >= self._grace_s

    async def _arrive(self, slot: ModelSlot[Any]) -> None:
        _log.info("model %s is being loaded: %s", slot.name, slot.need)
        try:
            value = await asyncio.get_running_loop().run_in_executor(self._threads, slot.load)
        except PentadError as error:
            _log.error("model %s cannot be loaded: %s", slot.name, error)
            slot.failed(error, self.clock())
        except Exception as error:
            _log.exception("model %s cannot be loaded", slot.name)
            slot.failed(BackendFailed(f"{type(error).__name__}; the log has more"), self.clock())
        else:
            slot.loaded(value, self.clock())
            _log.info("model %s is loaded after %.1f s", slot.name, slot.load_s)
            # Whoever waited takes its lease first.
            asyncio.get_running_loop().call_soon(self.changed, slot)
        self._settle()

    async def _leave(self, slot: ModelSlot[Any]) -> None:
        value, slot.value = slot.value, None
        slot.state = "unloading"
        try:
            if value is not None:
                leaving = slot.unload(value)
                del value  # whoever unloads it holds it alone
                await leaving
        except PentadError as error:
            _log.error("model %s could not be unloaded cleanly: %s", slot.name, error)
        finally:
            slot.state = "unloaded"
        _log.info("model %s is unloaded", slot.name)
        if slot.waiting:
            try:
                self.want(slot)
            except PentadError as error:
                slot.refuse(error)
        self._settle()

    def _later(self, key: str, delay_s: float, work: Callable[[], None]) -> None:
        """Does the work after a while; a second time under one key takes the first one's place."""
        if (former := self._timers.pop(key, None)) is not None:
            former.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(delay_s, work)

    def _begin(self, change: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
