"""WorkerClient: drives an engine in a supervised process, as EngineLoop drives one in this one.

    event loops                     supervisor's thread                 worker
    generate() -- ledger, outbox -------------------------------------> step()
               <- one call per loop    Tokens, Status              <---
                                       worker gone: starts another,
                                       gives it what is unfinished

What came out of a sequence is known here, and a draw is a function of seed and position. So when the worker
dies, its sequences go on in the next one, behind their tokens so far: a reader sees no more than a pause.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Any, Final

from pentad.errors import BackendFailed, Overloaded, PentadError, Unavailable
from pentad.execution.checks import check_memory
from pentad.execution.consumer import Consumer
from pentad.execution.loop import pass_on
from pentad.execution.memory import FreeMemory
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.worker.faults import error_of
from pentad.execution.worker.ledger import Items, Ledger
from pentad.execution.worker.messages import (
    Answer,
    Cancel,
    Question,
    Ready,
    Refused,
    Status,
    Stop,
    Tokens,
)
from pentad.execution.worker.restarts import Restarts
from pentad.execution.worker.supervisor import SILENCE_S, WAIT_S, Supervisor, Worker

_log = logging.getLogger(__name__)
_ANSWER_S: Final = 30.0
_LAST_S: Final = 12.0
"""Beside the time to drain: what the worker takes to cancel and to end."""


class WorkerClient:
    """Drives workers from its construction, which loads the first one, to `close`.

    Args:
        start: starts a worker; called again whenever one has died.
        model: what it serves, for messages.
        max_waiting: sequences kept while there is no worker; the worker itself bounds them otherwise.
        max_unread_tokens: a consumer with more drawn tokens unread than this is cut off.
        memory: what is free in this process, whose share of a request is text; None asks nobody.
        silence_s: seconds without a sign of life after which a worker is ended.
        restarts: how long to wait when workers die.

    Raises:
        PentadError: what the worker says of a model that cannot be loaded; BackendFailed when it died of it.
    """

    elsewhere = True

    def __init__(
        self,
        start: Callable[[], Worker],
        *,
        model: str,
        max_waiting: int = 256,
        max_unread_tokens: int = 4096,
        memory: FreeMemory | None = None,
        silence_s: float = SILENCE_S,
        restarts: Restarts | None = None,
    ) -> None:
        self.clock = time.monotonic
        self.max_sequence_tokens = 0
        self._model = model
        self._max_waiting = max_waiting
        self._max_unread_tokens = max_unread_tokens
        self._memory = memory
        self._lock = threading.Lock()
        """Guards all that follows, but for the supervisor."""
        self._worker: Worker | None = None
        """Only while it takes requests."""
        self._ledger = Ledger()
        self._questions: dict[int, tuple[bytes, Future[bytes]]] = {}
        self._status = Status({})
        self._past: dict[str, float] = {}
        """Counters of the workers that died."""
        self._closing = threading.Event()
        self._supervisor = Supervisor(
            start, self, model=model, closing=self._closing, silence_s=silence_s, restarts=restarts
        )

    # For event loops and other threads

    async def generate(self, requests: Sequence[TokenRequest]) -> AsyncIterator[StepOutput]:
        """See EngineDriver."""
        ids = [request.id for request in requests]
        consumer = Consumer(asyncio.get_running_loop(), ids, self._max_unread_tokens, self._cancel)
        self._refuse_short_of_memory(requests)
        with self._lock:
            self._refuse_while_down(len(requests))
            message = self._ledger.add(requests, consumer, self.clock())
            if self._worker is not None:
                self._worker.send(message)
        try:
            while consumer.open:
                yield await consumer.next()
        finally:
            self._cancel(consumer)

    def refuse_if_full(self) -> None:
        """See EngineDriver: as the worker has said lately."""
        with self._lock:
            self._refuse_while_down(0)
            refusal = self._status.refusal
        if refusal is not None:
            raise error_of(refusal)
        self._refuse_short_of_memory(())

    def _refuse_short_of_memory(self, requests: Sequence[TokenRequest]) -> None:
        if self._memory is not None:
            check_memory(self._memory.bytes(), requests, 0)

    def _refuse_while_down(self, count: int) -> None:
        if self._closing.is_set():
            raise Unavailable(
                "the engine finishes its last requests",
                retry_after_s=5.0,
                hint="try again later, or at another server",
            )
        if self._worker is not None:
            return
        if (pause_s := self._supervisor.pause_s) > WAIT_S:
            raise Unavailable(
                self._supervisor.trouble or "the engine is not there",
                retry_after_s=pause_s,
                hint="try again later; the server's log has the cause",
            )
        if len(self._ledger) + count > self._max_waiting:
            raise Overloaded(
                f"{len(self._ledger)} requests wait for the engine to start again",
                hint="try again later or raise --max-waiting",
            )

    def call(self, question: bytes) -> bytes:
        """What the model in the worker answers. Blocks; asked again of the next worker when this one dies.

        Raises:
            Unavailable: nobody answered in time, or the worker is held back.
            PentadError: the answer, where it is an error.
        """
        future: Future[bytes] = Future()
        with self._lock:
            self._refuse_while_down(0)
            number = self._ledger.number()
            self._questions[number] = (question, future)
            if self._worker is not None:
                self._worker.send(Question(number, question))
        try:
            return future.result(_ANSWER_S)
        except TimeoutError:
            raise Unavailable(
                f"the engine of {self._model!r} did not answer within {_ANSWER_S:g} s", hint="try again later"
            ) from None
        finally:
            with self._lock:
                self._questions.pop(number, None)

    def check(self) -> str | None:
        """See EngineDriver."""
        with self._lock:
            return self._status.trouble if self._worker is not None else self._supervisor.trouble

    def stats(self) -> dict[str, float]:
        """See EngineDriver: as the worker has said lately; counters are over all workers."""
        with self._lock:
            found = {name: value + self._past.get(name, 0.0) for name, value in self._status.stats.items()}
            return {
                **found,
                "consumers": len(self._ledger),
                "worker_up": float(self._worker is not None),
                "worker_restarts_total": self._supervisor.restarts.deaths,
            }

    @property
    def pid(self) -> int | None:
        """Process number of the worker; None while there is none."""
        with self._lock:
            return None if self._worker is None else self._worker.pid

    async def close(self, drain_s: float) -> None:
        """See EngineDriver. The process is gone afterwards, whatever it did."""
        with self._lock:
            self._closing.set()
            if self._worker is not None:
                self._worker.send(Stop(drain_s))
        over = self._supervisor.over
        if not await asyncio.to_thread(over.wait, drain_s + _LAST_S):
            _log.error("the engine's process of %s does not end; it is killed", self._model)
            self._supervisor.kill()
            await asyncio.to_thread(over.wait, _LAST_S)

    def _cancel(self, consumer: Consumer) -> None:
        if consumer.open:
            self._drop([consumer])

    def _drop(self, consumers: Collection[Consumer]) -> None:
        """Ends whatever these consumers still wait for."""
        with self._lock:
            numbers = self._ledger.of(consumers)
            self._ledger.forget(numbers)
            if self._worker is not None and numbers:
                self._worker.send(Cancel(tuple(numbers)))

    # What the supervisor tells

    def ready(self, worker: Worker, ready: Ready) -> None:
        """See Served: gives the worker all that is unfinished."""
        with self._lock:
            self._worker = worker
            self.max_sequence_tokens = ready.max_sequence_tokens
            if self._closing.is_set():
                worker.send(Stop(0.0))
            for message in self._ledger.rest():
                worker.send(message)
            for number, (question, _) in self._questions.items():
                worker.send(Question(number, question))

    def take(self, message: Any) -> None:
        """See Served."""
        match message:
            case Tokens():
                with self._lock:
                    items = self._ledger.take(message, self.clock())
                self._give(items)
            case Status():
                with self._lock:
                    self._status = message
            case Refused(numbers, fault):
                self._fail(numbers, error_of(fault))
            case Answer(number, answer, fault):
                with self._lock:
                    _, future = self._questions.pop(number, (b"", None))
                if future is not None:
                    _settle(future, answer if fault is None else error_of(fault))

    def died(self, how: str, *, held_back: bool) -> None:
        """See Served: ends what cannot wait for the next worker, or has seen too many die."""
        failed = BackendFailed(f"the engine's process {how} while it served the request", hint="try again")
        with self._lock:
            alive, self._worker = self._worker is not None, None
            for name, value in self._status.stats.items():
                if name.endswith("_total"):
                    self._past[name] = self._past.get(name, 0.0) + value
            self._status = Status(dict.fromkeys(self._status.stats, 0.0))
            lost = self._ledger.died() if alive else []
            lost = self._ledger.all() if held_back else lost
            questions = list(self._questions.values()) if held_back else []
        self._fail(lost, failed)
        for _, future in questions:
            _settle(future, failed)

    def ended(self) -> None:
        """See Served."""
        closed = BackendFailed("the engine is closed", hint="try again at another server")
        with self._lock:
            self._worker = None
            left, questions = self._ledger.all(), list(self._questions.values())
        self._fail(left, closed)
        for _, future in questions:
            _settle(future, closed)

    def _fail(self, numbers: Collection[int], error: PentadError) -> None:
        """Ends these, and what their consumers wait for beside them."""
        with self._lock:
            consumers = self._ledger.consumers(numbers)
            self._ledger.forget(numbers)
        self._drop(consumers)
        self._give([(consumer, error) for consumer in consumers])

    def _give(self, items: Items) -> None:
        """Hands outputs over, in one call per event loop."""
        if gone := pass_on(items):
            self._drop(gone)


def _settle(future: Future[bytes], result: bytes | PentadError) -> None:
    """Gives a question its answer, unless it has one."""
    if future.done():
        return
    if isinstance(result, PentadError):
        future.set_exception(result)
    else:
        future.set_result(result)
