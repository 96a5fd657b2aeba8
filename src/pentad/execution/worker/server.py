"""EngineServer: the worker's side, an engine that obeys what comes through a link.

link, read by the main thread     engine thread          beats
Generate, Cancel, Question ---->  step(), one Tokens     a Status now and then
                                  message per step
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from pentad.errors import PentadError
from pentad.execution.engine import Engine
from pentad.execution.engine_thread import EngineThread
from pentad.execution.request import Constraint, StepOutput, TokenRequest, Watcher
from pentad.execution.transport.base import Link, PeerLost
from pentad.execution.worker.faults import Fault, fault_of
from pentad.execution.worker.messages import (
    Answer,
    Cancel,
    Generate,
    Question,
    Ready,
    Refused,
    Status,
    Stop,
    tokens_of,
)

_log = logging.getLogger(__name__)
BEAT_S: Final = 0.25
"""Between two signs of life."""
_HELPERS: Final = 2
"""Threads that compile grammars, so that neither steps nor cancellations wait for them."""


class GuideHost(Protocol):
    """What the opened model makes in the engine's process. Implemented in the model layer. Thread-safe."""

    def constraint(self, guide: bytes, generated: tuple[int, ...]) -> Constraint:
        """The constraint that a guide describes, behind what was generated already."""
        ...

    def watcher(self, guide: bytes, generated: tuple[int, ...]) -> Watcher:
        """The watcher that a guide describes, behind what was generated already."""
        ...

    def answer(self, question: bytes) -> bytes:
        """Whatever else the model is asked."""
        ...


@dataclass(eq=False, slots=True)
class _Group:
    """Requests that came together, and how their sequences are called on the wire."""

    numbers: dict[str, int] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)
    """Numbers whose end was asked for before the engine had them."""
    taken: bool = False


class EngineServer:
    """Serves one engine to one driver until that stops it or is gone.

    Args:
        engine: closed at the end.
        link: to the driver; closed at the end.
        host: makes constraints and watchers.
        beat_s: seconds between two messages of Status.
        options: of the EngineThread.
    """

    def __init__(
        self, engine: Engine, link: Link, host: GuideHost, *, beat_s: float = BEAT_S, **options: float
    ) -> None:
        self._engine = engine
        self._link = link
        self._host = host
        self._beat_s = beat_s
        self._groups: dict[int, _Group] = {}
        self._lock = threading.Lock()
        """Guards `_groups` and what is in them."""
        self._over = threading.Event()
        self._thread: EngineThread[_Group] = EngineThread(engine, self._give, **options)
        self._helpers = ThreadPoolExecutor(_HELPERS, thread_name_prefix="pentad-guides")

    def serve(self) -> None:
        """Returns when the driver has stopped the engine and it is closed.

        Raises PeerLost when the driver is gone: nobody is left to compute for.
        """
        self._link.send(Ready(self._engine.max_sequence_tokens))
        self._send(self._status())
        threading.Thread(target=self._beat, name="pentad-beats", daemon=True).start()
        try:
            while True:
                frame = self._link.receive()
                assert frame is not None, "waited without a limit"
                match frame.message:
                    case Generate():
                        self._generate(frame.message)
                    case Cancel(numbers):
                        self._cancel(numbers)
                    case Question():
                        self._helpers.submit(self._answer, frame.message)
                    case Stop(drain_s):
                        self._thread.drain()
                        threading.Thread(target=self._stop, args=(drain_s,), daemon=True).start()
        except PeerLost:
            if not self._over.is_set():
                raise
        finally:
            self._helpers.shutdown(wait=False, cancel_futures=True)

    def _stop(self, drain_s: float) -> None:
        self._thread.close(drain_s)
        self._over.set()
        self._link.close()

    def _generate(self, message: Generate) -> None:
        group = _Group({r.id: message.first + i for i, r in enumerate(message.requests)})
        with self._lock:
            self._groups |= dict.fromkeys(group.numbers.values(), group)
        if any(r.guide is not None for r in message.requests):
            self._helpers.submit(self._take, group, message.requests)
        else:
            self._take(group, message.requests)

    def _take(self, group: _Group, requests: tuple[TokenRequest, ...]) -> None:
        """Gives the engine requests, once what guides them is made."""
        try:
            guided = [self._guided(request) for request in requests]
            with self._lock:
                group.taken = True
                left = [r for r in guided if group.numbers[r.id] not in group.cancelled]
            if left:
                self._thread.post(left, group)
        except Exception as error:
            if not isinstance(error, PentadError):
                _log.exception("a request could not be taken")
            self._refuse(group, fault_of(error))

    def _guided(self, request: TokenRequest) -> TokenRequest:
        if (guide := request.guide) is None:
            return request
        made: dict[str, Any] = {}
        if guide.constraint is not None:
            made["constraint"] = self._host.constraint(guide.constraint, request.generated)
        if guide.watcher is not None:
            made["watcher"] = self._host.watcher(guide.watcher, request.generated)
        return replace(request, guide=None, **made)

    def _refuse(self, group: _Group, fault: Fault) -> None:
        with self._lock:
            numbers = [n for n in group.numbers.values() if self._groups.pop(n, None) is not None]
        if numbers:
            self._send(Refused(tuple(numbers), fault))

    def _cancel(self, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            with self._lock:
                group = self._groups.pop(number, None)
                if group is not None:
                    group.cancelled.add(number)
            if group is not None:
                self._thread.cancel([id for id, n in group.numbers.items() if n == number], group)

    def _answer(self, question: Question) -> None:
        try:
            answer = Answer(question.number, self._host.answer(question.question))
        except Exception as error:
            if not isinstance(error, PentadError):
                _log.exception("a question could not be answered")
            answer = Answer(question.number, fault=fault_of(error))
        self._send(answer)

    # The engine's thread

    def _give(self, items: list[tuple[_Group, StepOutput | PentadError]]) -> Collection[_Group]:
        outputs: list[tuple[int, StepOutput]] = []
        ended = False
        for group, output in items:
            if isinstance(output, PentadError):
                self._refuse(group, fault_of(output))
                continue
            number = group.numbers[output.id]
            if output.stats is not None:
                ended = True
                with self._lock:
                    self._groups.pop(number, None)
            outputs.append((number, output))
        if outputs:
            self._send(tokens_of(outputs))
        if ended:
            self._send(self._status())
        return ()

    # The beats' thread

    def _beat(self) -> None:
        while not self._over.wait(self._beat_s) and self._send(self._status()):
            pass

    def _status(self) -> Status:
        refusal: Fault | None = None
        if not self._thread.ended:  # nobody asks an engine that closes
            try:
                self._engine.refuse_if_full()
            except PentadError as error:
                refusal = fault_of(error)
        return Status(self._thread.stats(), self._thread.check(), refusal, self._thread.lost)

    def _send(self, message: Any) -> bool:
        """Whether the driver is there; that it is gone is seen, and acted on, where the link is read."""
        try:
            self._link.send(message)
        except PeerLost:
            return False
        return True
