"""EngineLoop: an engine in a thread of this process, and asynchronous consumers that read from it.

    consumers (event loops)                                engine thread
    generate() --- inbox: add, cancel ------------------>  run what came in
               <-- one call per step and event loop -----  step(), deliver

Buffers are touched by their event loop alone, the engine by its thread alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Protocol

from pentad.errors import PentadError
from pentad.execution.consumer import Consumer, hand_over
from pentad.execution.engine import Engine
from pentad.execution.engine_thread import EngineThread
from pentad.execution.request import StepOutput, TokenRequest
from pentad.types import Clock

Items = list[tuple[Consumer, StepOutput | PentadError]]


class EngineDriver(Protocol):
    """An engine wherever it runs: in this process, or in a worker."""

    @property
    def elsewhere(self) -> bool:
        """Whether the engine is in another process, and reads `TokenRequest.guide`."""
        ...

    @property
    def clock(self) -> Clock:
        """Of all instants that it reports."""
        ...

    @property
    def max_sequence_tokens(self) -> int:
        """The longest sequence, prompt and answer, that the engine can hold."""
        ...

    def refuse_if_full(self) -> None:
        """Raises Overloaded or Unavailable while nothing at all would be taken; cheap."""
        ...

    def generate(self, requests: Sequence[TokenRequest]) -> AsyncIterator[StepOutput]:
        """What the engine draws for these requests, given together so that choices share a prompt.

        Outputs of one sequence come in order; those that a slow reader has not taken are merged.
        The stream ends when all sequences have; closing it earlier cancels them within two steps.

        Raises:
            InvalidRequest, ContextLengthExceeded, Conflict, Overloaded, Unavailable: before any output.
            BackendFailed: the runner failed under one of the sequences; the others are cancelled.
            Overloaded: this reader was too slow and was cut off.
        """
        ...

    def check(self) -> str | None:
        """None while healthy: steps are completed, or nothing is asked; else the reason."""
        ...

    def stats(self) -> dict[str, float]:
        """The engine's gauges and counters; cheap, from any thread."""
        ...

    async def close(self, drain_s: float) -> None:
        """Refuses new requests, lets the present ones finish for `drain_s`, cancels the rest.

        Returns when the engine is closed, or 10 s after the cancellation if a step hangs.
        """
        ...


class EngineLoop:
    """Drives an engine, which it owns from now on, in a daemon thread of its own.

    Args:
        engine: closed together with the loop.
        max_unread_tokens: a consumer with more drawn tokens unread than this is cut off.
        stall_s: seconds without a completed step, while there is work, before `check` complains.
    """

    elsewhere = False

    def __init__(self, engine: Engine, *, max_unread_tokens: int = 4096, stall_s: float = 30.0) -> None:
        self.engine = engine
        self.clock = engine.clock
        self.max_sequence_tokens = engine.max_sequence_tokens
        self._max_unread_tokens = max_unread_tokens
        self.thread: EngineThread[Consumer] = EngineThread(engine, pass_on, stall_s=stall_s)

    def refuse_if_full(self) -> None:
        """See EngineDriver."""
        self.engine.refuse_if_full()

    async def generate(self, requests: Sequence[TokenRequest]) -> AsyncIterator[StepOutput]:
        """See EngineDriver."""
        self.engine.validate(*requests)
        self.engine.refuse_if_full(*requests)
        ids = [request.id for request in requests]
        consumer = Consumer(asyncio.get_running_loop(), ids, self._max_unread_tokens, self._cancel)
        self.thread.post(requests, consumer)
        try:
            while consumer.open:
                yield await consumer.next()
        finally:
            self._cancel(consumer)

    def check(self) -> str | None:
        """See EngineDriver."""
        return self.thread.check()

    def stats(self) -> dict[str, float]:
        """See EngineDriver."""
        return self.thread.stats()

    async def close(self, drain_s: float) -> None:
        """See EngineDriver."""
        self.thread.drain()
        await asyncio.to_thread(self.thread.close, drain_s)

    def _cancel(self, consumer: Consumer) -> None:
        if consumer.open:
            self.thread.cancel(consumer.open, consumer)


def pass_on(items: Iterable[tuple[Consumer, StepOutput | PentadError]]) -> Collection[Consumer]:
    """Hands outputs to their consumers, in one call per event loop; returns those whose loop is closed."""
    by_loop: dict[asyncio.AbstractEventLoop, Items] = {}
    for item in items:
        by_loop.setdefault(item[0].loop, []).append(item)
    gone: set[Consumer] = set()
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(hand_over, mine)
        except RuntimeError:  # that event loop is closed, and its consumers went with it
            gone |= {consumer for consumer, _ in mine}
    return gone
