"""Supervisor: keeps a worker alive; when one dies it starts another, later and later if that dies too."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from pentad.errors import BackendFailed, PentadError
from pentad.execution.transport.base import BadFrame, PeerLost, Received
from pentad.execution.worker.faults import error_of
from pentad.execution.worker.messages import Failed, Ready, Status
from pentad.execution.worker.restarts import Restarts

_log = logging.getLogger(__name__)
SILENCE_S: Final = 5.0
"""A worker that gives no sign of life for so long is ended; it gives four a second."""
_LOAD_S: Final = 600.0
"""A worker that has not loaded its model after so long is ended."""
WAIT_S: Final = 2.5
"""Longest pause before a start that requests are kept for."""


class Worker(Protocol):
    """One life of a worker: WorkerProcess, but for tests."""

    started_s: float

    @property
    def pid(self) -> int: ...

    def send(self, message: Any) -> None:
        """Puts a message on its way; never waits. Where the worker is gone it is dropped."""
        ...

    def receive(self, timeout_s: float) -> Received | None:
        """See Link."""
        ...

    def join(self, timeout_s: float) -> bool:
        """Whether it ends by itself within that time."""
        ...

    def kill(self) -> str:
        """Ends it whatever it does. Says how it ended."""
        ...


class Served(Protocol):
    """Who gives work to the worker. Called in the supervisor's thread, but for the first `ready`."""

    def ready(self, worker: Worker, ready: Ready) -> None:
        """A worker is there and takes requests."""
        ...

    def take(self, message: Any) -> None:
        """Takes what it says. Raises ValueError for what cannot be read."""
        ...

    def died(self, how: str, *, held_back: bool) -> None:
        """There is no worker; `held_back` where the next one is not started soon."""
        ...

    def ended(self) -> None:
        """There is no worker, and there will be none."""
        ...


class Supervisor:
    """Runs from its construction, which loads the first worker, to `close`.

    Args:
        start: starts a worker; called again whenever one has died.
        served: told of all that happens.
        model: what is served, for messages.
        closing: set by who wants no further worker; then the one that is there has to be stopped.
        silence_s: seconds without a sign of life after which a worker is ended.
        restarts: how long to wait.

    Raises:
        PentadError: what the worker says of a model that cannot be loaded; BackendFailed when it died of it.
    """

    def __init__(
        self,
        start: Callable[[], Worker],
        served: Served,
        *,
        model: str,
        closing: threading.Event,
        silence_s: float = SILENCE_S,
        restarts: Restarts | None = None,
    ) -> None:
        self._start = start
        self._served = served
        self._model = model
        self._silence_s = silence_s
        self.restarts = restarts or Restarts()
        self.trouble: str | None = None
        """Why there is no worker."""
        self.next_start_s = 0.0
        """Instant before which none is started."""
        self.closing = closing
        self.over = threading.Event()
        """Set once there is none."""
        self._worker = self._loaded()
        self._thread = threading.Thread(target=self._run, name=f"pentad-worker-{model}", daemon=True)
        self._thread.start()

    @property
    def pause_s(self) -> float:
        """Seconds until a worker may be started."""
        return max(0.0, self.next_start_s - time.monotonic())

    def kill(self) -> None:
        """Ends the worker, whatever it does."""
        self._worker.kill()

    def _run(self) -> None:
        while True:
            worker = self._worker
            reason = self._lived(worker)
            end = worker.kill()
            if self.closing.is_set():
                break
            self._mourn(reason or end, time.monotonic() - worker.started_s)
            if not self._started_again():
                break
        self.trouble = "the engine is closed"
        self._served.ended()
        self.over.set()

    def _loaded(self) -> Worker:
        """A new worker that has loaded its model, and was told to who gives it work."""
        worker = self._start()
        try:
            until_s = time.monotonic() + _LOAD_S
            while not self.closing.is_set() and time.monotonic() < until_s:
                frame = worker.receive(0.2)
                if frame is not None and isinstance(frame.message, Ready):
                    self.trouble = None
                    self._served.ready(worker, frame.message)
                    return worker
                if frame is not None and isinstance(frame.message, Failed):
                    raise error_of(frame.message.fault)
            raise BackendFailed(f"the engine's process did not load {self._model!r} in time")
        except (PeerLost, BadFrame):
            worker.join(1.0)
            raise BackendFailed(
                f"the engine's process {worker.kill()} while it loaded {self._model!r}",
                hint="see its log; a smaller --kv-bytes or a higher limit of memory may help",
            ) from None
        except BaseException:
            worker.kill()
            raise

    def _lived(self, worker: Worker) -> str | None:
        """Passes on what the worker says until it is gone; why it has to be ended, if it is not."""
        while True:
            try:
                frame = worker.receive(self._silence_s)
                if frame is None:
                    return f"gave no sign of life for {self._silence_s:g} s"
                self._served.take(frame.message)
                if isinstance(frame.message, Status) and frame.message.lost:
                    return f"was given up: {frame.message.trouble}"
            except PeerLost:
                worker.join(1.0)
                return None
            except (BadFrame, ValueError) as error:
                return f"sent what cannot be read: {error}"

    def _mourn(self, how: str, lived_s: float) -> None:
        """Notes a death, and when the next start is."""
        pause_s = self.restarts.died(lived_s)
        self.next_start_s = time.monotonic() + pause_s
        again = "it is started again" if not pause_s else f"it is started again in {pause_s:.1f} s"
        times = self.restarts.in_a_row
        found = f"the engine's process {how}" if times == 1 else f"death {times} in a row: {how}"
        self.trouble = f"{found}; {again}"
        _log.error("model %s: %s", self._model, self.trouble)
        self._served.died(how, held_back=pause_s > WAIT_S)

    def _started_again(self) -> bool:
        """Starts a worker, as often as it takes; False when that is no longer wanted."""
        while not self.closing.wait(self.pause_s):
            begun_s = time.monotonic()
            try:
                self._worker = self._loaded()
            except PentadError as error:
                if not self.closing.is_set():
                    self._mourn(f"could not be started: {error.message}", time.monotonic() - begun_s)
            else:
                return True
        return False
