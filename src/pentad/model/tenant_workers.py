"""TenantWorkers: threads that tenants share, so that none waits for all the work of another."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pentad.errors import Overloaded

T = TypeVar("T")
THREADS: Final = 2
MAX_WAITING: Final = 64
"""Of one tenant; more is refused."""


@dataclass(slots=True)
class _Job:
    future: Future[Any]
    work: Callable[..., Any]
    arguments: tuple[object, ...]


@dataclass(slots=True)
class _Line:
    """What one tenant has here."""

    waiting: deque[_Job] = field(default_factory=deque)
    running: bool = False


class TenantWorkers:
    """Runs work on a few threads: one piece per tenant at a time, the tenants in turn.

    So whoever brings little waits for at most one piece of everybody else's, however much that is.
    Threads start when needed. Thread-safe.

    Args:
        name: of the threads.
        threads: how many.
        max_waiting: pieces that one tenant may have waiting.
    """

    def __init__(self, name: str, threads: int = THREADS, max_waiting: int = MAX_WAITING) -> None:
        self._name = name
        self._threads = threads
        self._max_waiting = max_waiting
        self._change = threading.Condition()
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        """Tenants with anything here; whoever was served moves behind the others."""
        self._started = 0

    def submit(self, tenant: str, work: Callable[..., T], *arguments: object) -> Future[T]:
        """The future result of `work(*arguments)`. One that is cancelled while it waits is not begun.

        Raises:
            Overloaded: the tenant has too much waiting.
        """
        job = _Job(Future(), work, arguments)
        with self._change:
            line = self._lines.setdefault(tenant, _Line())
            line.waiting = deque(job for job in line.waiting if not job.future.cancelled())
            if len(line.waiting) >= self._max_waiting:
                raise Overloaded(
                    f"{len(line.waiting)} requests of this tenant wait for their output format or tools",
                    hint="send fewer at a time",
                )
            line.waiting.append(job)
            if self._started < self._threads:
                self._started += 1
                name = f"{self._name}-{self._started}"
                threading.Thread(target=self._serve, name=name, daemon=True).start()
            self._change.notify()
        return job.future

    def _serve(self) -> None:
        while True:
            tenant, job = self._next()
            try:
                if job.future.set_running_or_notify_cancel():
                    _run(job)
            finally:
                self._done(tenant)
            del job

    def _next(self) -> tuple[str, _Job]:
        with self._change:
            while True:
                for tenant, line in self._lines.items():
                    if line.waiting and not line.running:
                        line.running = True
                        return tenant, line.waiting.popleft()
                self._change.wait()

    def _done(self, tenant: str) -> None:
        with self._change:
            line = self._lines[tenant]
            line.running = False
            self._lines.move_to_end(tenant)
            if not line.waiting:
                del self._lines[tenant]
            self._change.notify()


def _run(job: _Job) -> None:
    try:
        result = job.work(*job.arguments)
    except BaseException as error:  # handed to whoever waits for it
        job.future.set_exception(error)
    else:
        job.future.set_result(result)


@functools.cache
def compilers() -> TenantWorkers:
    """The threads on which this server makes grammars, for all its models."""
    return TenantWorkers("compile-grammar")
