"""Interpreters: processes of workers, started ahead of need so that they import while others load."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from pentad.execution.transport.base import KEY_BYTES


class ChildProcess(Protocol):
    """A process that waits for a line of JSON, and ends when who started it does."""

    @property
    def pid(self) -> int: ...

    def say(self, config: dict[str, Any]) -> None:
        """Gives it the line. One that is gone is seen by `poll`."""
        ...

    def poll(self) -> int | None:
        """How it ended, as Popen says; None while it runs."""
        ...

    def kill(self) -> None:
        """Ends it, whatever it does."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """How it ended. Raises subprocess.TimeoutExpired."""
        ...

    def release(self) -> None:
        """Gives back what is held of it, once it has ended."""
        ...


class Starter(Protocol):
    """Starts the processes of workers, here or elsewhere."""

    def take(self) -> ChildProcess:
        """A process that runs. Raises PentadError where none can be had."""
        ...

    def secret(self, group: str) -> bytes:
        """The key of the link to a process."""
        ...

    def close(self) -> None:
        """Gives back what was started ahead of need."""
        ...


class LocalProcess:
    """A ChildProcess of this machine, with a pipe to its standard input as lifeline."""

    def __init__(self, command: Sequence[str]) -> None:
        # In a group of its own: Ctrl-C at a terminal is for who serves, which then stops its workers.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, config: dict[str, Any]) -> None:
        """See ChildProcess."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # seen again as a process that does not connect
            self._process.stdin.write(json.dumps(config).encode() + b"\n")
            self._process.stdin.flush()

    def poll(self) -> int | None:
        """See ChildProcess."""
        return self._process.poll()

    def kill(self) -> None:
        """See ChildProcess."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """See ChildProcess."""
        return self._process.wait(timeout)

    def release(self) -> None:
        """See ChildProcess."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


class Interpreters:
    """Starts processes of one command, each with a pipe to its standard input.

    A worker waits there for what it has to serve, and ends when the pipe is closed, as it is when this
    process ends.

    Args:
        command: starts a worker.
        ahead: how many are started at once.
    """

    def __init__(self, command: Sequence[str], *, ahead: int = 0) -> None:
        self._command = command
        self._ready = [LocalProcess(command) for _ in range(ahead)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self) -> LocalProcess:
        """A process that runs: one of those that were started ahead, else a new one."""
        while self._ready:
            process = self._ready.pop()
            if process.poll() is None:
                return process
            _end(process)
        return LocalProcess(self._command)

    def secret(self, group: str) -> bytes:
        """See Starter: nobody else ever sees it."""
        del group
        return secrets.token_bytes(KEY_BYTES)

    def close(self) -> None:
        """Ends those that nobody took."""
        while self._ready:
            _end(self._ready.pop())


def _end(process: LocalProcess) -> None:
    process.kill()
    process.wait()
    process.release()
