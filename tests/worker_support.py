"""Workers in threads of this process, around real engines, that can be killed and silenced."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from pentad.errors import PentadError
from pentad.execution.batch import Drawn
from pentad.execution.engine import Engine
from pentad.execution.request import Constraint, Watcher
from pentad.execution.transport.base import Member, PeerLost, Received
from pentad.execution.transport.in_process import InProcess
from pentad.execution.worker.faults import fault_of
from pentad.execution.worker.messages import WIRE, Failed
from pentad.execution.worker.server import EngineServer


class StopAt:
    """A watcher that ends its sequence with a token, and knows all that it saw."""

    def __init__(self, token: int, seen: tuple[int, ...]) -> None:
        self.token, self.seen = token, list(seen)

    def accept(self, drawn: Drawn) -> bool:
        self.seen.append(drawn.token)
        return drawn.token == self.token


class Host:
    """Makes StopAt watchers of a byte; answers a question with its reverse, or an error."""

    def __init__(self) -> None:
        self.watchers: list[StopAt] = []

    def constraint(self, guide: bytes, generated: tuple[int, ...]) -> Constraint:
        raise AssertionError((guide, generated))

    def watcher(self, guide: bytes, generated: tuple[int, ...]) -> Watcher:
        self.watchers.append(StopAt(guide[0], generated))
        return self.watchers[-1]

    def answer(self, question: bytes) -> bytes:
        if question == b"error":
            raise PentadError("no answer to that", hint="ask something else")
        return question[::-1]


class ThreadWorker:
    """As WorkerProcess, but a thread: the link is cut where a process would be killed."""

    pid = 0

    def __init__(
        self, make: Callable[[], Engine], host: Host, *, beat_s: float = 0.02, **options: float
    ) -> None:
        self.started_s = time.monotonic()
        here = Member(group="g", rank=0, size=2, key=bytes(32))
        transport = InProcess()
        listener = transport.listen(here, WIRE)
        theirs = transport.connect(listener.address, Member(group="g", rank=1, size=2, key=bytes(32)), WIRE)
        link = listener.accept(1)
        assert link is not None
        self._link = link
        self.silent = False
        self.killed = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(make, host, theirs, beat_s, options), daemon=True
        )
        self._thread.start()

    def _serve(
        self, make: Callable[[], Engine], host: Host, link: Any, beat_s: float, options: dict[str, float]
    ) -> None:
        try:
            engine = make()
        except PentadError as error:
            link.send(Failed(fault_of(error)))
            return
        with contextlib.suppress(PeerLost):
            EngineServer(engine, link, host, beat_s=beat_s, **options).serve()

    def send(self, message: Any) -> None:
        with contextlib.suppress(PeerLost):
            self._link.send(message)

    def receive(self, timeout_s: float) -> Received | None:
        until_s = time.monotonic() + timeout_s
        while self.silent and time.monotonic() < until_s:
            time.sleep(0.01)
        return None if self.silent else self._link.receive(timeout_s)

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def kill(self) -> str:
        self.killed.set()
        self._link.close()
        return "was killed by SIGKILL"
