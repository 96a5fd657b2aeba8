"""EngineLoop: one thread that steps the engine, and asynchronous consumers that read from it.

    consumers (event loops)                                engine thread
    generate() --- inbox: add, cancel ------------------>  run what came in
               <-- one call per step and event loop -----  step(), deliver

Nothing else crosses: the engine is touched by its thread alone, buffers by their event loop alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from pentad.errors import BackendFailed, PentadError, Unavailable
from pentad.execution.consumer import Consumer, hand_over
from pentad.execution.engine import Engine
from pentad.execution.request import StepOutput, TokenRequest

_log = logging.getLogger(__name__)

_FAILURES_TOLERATED = 2
_EMPTY_STEP_PAUSE_S = 0.005
_LAST_STEP_S = 10.0


@dataclass(frozen=True, slots=True)
class _Add:
    requests: tuple[TokenRequest, ...]
    consumer: Consumer


@dataclass(frozen=True, slots=True)
class _Cancel:
    ids: tuple[str, ...]
    consumer: Consumer


class EngineLoop:
    """Drives an engine, which it owns from now on, in a daemon thread of its own.

    The thread sleeps while there is nothing to do.

    Args:
        engine: closed together with the loop.
        max_unread_tokens: a consumer with more drawn tokens unread than this is cut off.
        stall_s: seconds without a completed step, while there is work, before `check` complains.
    """

    def __init__(self, engine: Engine, *, max_unread_tokens: int = 4096, stall_s: float = 30.0) -> None:
        self.engine = engine
        self._max_unread_tokens = max_unread_tokens
        self._stall_s = stall_s
        self._wake = threading.Condition()
        self._inbox: list[_Add | _Cancel] = []
        self._draining = False
        self._stopping = False
        self._ended: str | None = None
        """Why no more requests are taken; set under `_wake`."""
        self._consumers: dict[str, Consumer] = {}
        self._progress_s = engine.clock()
        self._thread = threading.Thread(target=self._run, name="pentad-engine", daemon=True)
        self._thread.start()

    # For consumers, in their event loops

    async def generate(self, requests: Sequence[TokenRequest]) -> AsyncIterator[StepOutput]:
        """What the engine draws for these requests, given together so that choices share a prompt.

        Outputs of one sequence come in order; those that a slow reader has not taken are merged.
        The stream ends when all sequences have; closing it earlier cancels them within two steps.

        Raises:
            InvalidRequest, ContextLengthExceeded, Conflict, Overloaded, Unavailable: before any output.
            BackendFailed: the runner failed under one of the sequences; the others are cancelled.
            Overloaded: this reader was too slow and was cut off.
        """
        self.engine.validate(*requests)
        self.engine.refuse_if_full(*requests)
        consumer = Consumer(
            asyncio.get_running_loop(),
            (request.id for request in requests),
            self._max_unread_tokens,
            self._cancel,
        )
        self._post(_Add(tuple(requests), consumer))
        try:
            while consumer.open:
                yield await consumer.next()
        finally:
            self._cancel(consumer)

    def check(self) -> str | None:
        """None while healthy: steps are completed, or nothing is asked; else the reason."""
        if self._ended is not None:
            return self._ended
        failures = self.engine.failures_in_a_row
        if failures > _FAILURES_TOLERATED:
            return f"the model runner failed in each of the latest {failures} steps"
        idle_s = self.engine.clock() - self._progress_s
        if self.engine.has_work and idle_s > self._stall_s:
            return f"no step was completed for {idle_s:.0f} s although requests wait"
        return None

    def stats(self) -> dict[str, float]:
        """The engine's gauges and counters; cheap, from any thread."""
        return {**self.engine.stats(), "consumers": len(self._consumers)}

    async def close(self, drain_s: float) -> None:
        """Refuses new requests, lets the present ones finish for `drain_s`, cancels the rest.

        Returns when the thread has ended and the runner is closed, or 10 s after the cancellation
        if a step hangs.
        """
        with self._wake:
            self._draining = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, max(0.0, drain_s))
        if self._thread.is_alive():
            with self._wake:
                self._stopping = True
                self._wake.notify()
            await asyncio.to_thread(self._thread.join, _LAST_STEP_S)
        if self._thread.is_alive():
            _log.error("the engine's step has not returned for %.0f s; left behind", _LAST_STEP_S)

    def _post(self, add: _Add) -> None:
        with self._wake:
            if self._ended is not None or self._draining:
                raise Unavailable(
                    self._ended or "the engine finishes its last requests",
                    retry_after_s=5.0,
                    hint="try again later, or at another server",
                )
            self._inbox.append(add)
            self._wake.notify()

    def _cancel(self, consumer: Consumer) -> None:
        if consumer.open:
            with self._wake:
                self._inbox.append(_Cancel(tuple(consumer.open), consumer))
                self._wake.notify()

    # The engine's thread

    def _run(self) -> None:
        reason = "the engine is closed"
        try:
            while self._turn():
                pass
        except Exception as error:
            _log.critical("the engine broke", exc_info=error)
            reason = f"the engine broke with {type(error).__name__}; restart the server"
        with self._wake:
            self._ended = reason
            inbox, self._inbox = self._inbox, []
        self._end(inbox, reason)

    def _turn(self) -> bool:
        """Waits for something to do and does it; False when the loop shall end."""
        with self._wake:
            if not (self._inbox or self.engine.has_work or self._draining):
                self._wake.wait_for(lambda: self._inbox or self._draining)
                self._progress_s = self.engine.clock()
            inbox, self._inbox = self._inbox, []
        for message in inbox:
            self._obey(message)
        if self._stopping or not self.engine.has_work:
            return not (self._stopping or self._draining)
        steps = self.engine.steps
        outputs = self.engine.step()
        if self.engine.steps != steps:
            self._progress_s = self.engine.clock()
        elif not outputs:
            with self._wake:  # the scheduler found nothing to run: no use in asking at once again
                self._wake.wait_for(lambda: self._inbox or self._stopping, _EMPTY_STEP_PAUSE_S)
        self._deliver(outputs)
        return True

    def _obey(self, message: _Add | _Cancel) -> None:
        if isinstance(message, _Cancel):
            for id in message.ids:
                if self._consumers.get(id) is message.consumer:  # not another's of the same id
                    del self._consumers[id]
                    self.engine.cancel(id)
            return
        consumer = message.consumer
        try:
            self.engine.add(*message.requests)
        except PentadError as error:
            self._call(consumer.loop, [(consumer, error)])
            return
        for request in message.requests:
            self._consumers[request.id] = consumer

    def _deliver(self, outputs: list[StepOutput]) -> None:
        """Hands a step's outputs over, in one call per event loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Consumer, StepOutput | PentadError]]] = {}
        for output in outputs:
            ended = output.stats is not None
            consumer = (self._consumers.pop if ended else self._consumers.get)(output.id, None)
            if consumer is not None:
                by_loop.setdefault(consumer.loop, []).append((consumer, output))
        for loop, items in by_loop.items():
            self._call(loop, items)

    def _call(
        self, loop: asyncio.AbstractEventLoop, items: list[tuple[Consumer, StepOutput | PentadError]]
    ) -> None:
        try:
            loop.call_soon_threadsafe(hand_over, items)
        except RuntimeError:  # that event loop is closed, and its consumers went with it
            gone = {consumer for consumer, _ in items}
            for id in [id for id, consumer in self._consumers.items() if consumer in gone]:
                del self._consumers[id]
                self.engine.cancel(id)

    def _end(self, inbox: list[_Add | _Cancel], reason: str) -> None:
        """Tells everyone who still waits, and closes the engine."""
        for message in inbox:
            if isinstance(message, _Add):
                self._call(message.consumer.loop, [(message.consumer, Unavailable(reason))])
        try:
            if self._stopping or self._draining:
                self._deliver(self.engine.cancel_all())
            self.engine.close()
        except Exception as error:
            _log.error("closing the engine failed", exc_info=error)
        broken = BackendFailed(reason, hint="try again at another server")
        left = list(dict.fromkeys(self._consumers.values()))
        self._consumers.clear()
        for consumer in left:
            self._call(consumer.loop, [(consumer, broken)])
