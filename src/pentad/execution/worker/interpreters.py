"""Interpreters: processes of workers, started ahead of need so that they import while others load."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self


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
        self._ready = [self._started() for _ in range(ahead)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self) -> subprocess.Popen[bytes]:
        """A process that runs: one of those that were started ahead, else a new one."""
        while self._ready:
            process = self._ready.pop()
            if process.poll() is None:
                return process
            _end(process)
        return self._started()

    def close(self) -> None:
        """Ends those that nobody took."""
        while self._ready:
            _end(self._ready.pop())

    def _started(self) -> subprocess.Popen[bytes]:
        # In a group of its own: Ctrl-C at a terminal is for who serves, which then stops its workers.
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
