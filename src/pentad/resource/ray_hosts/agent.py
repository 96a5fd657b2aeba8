"""Agent: starts processes on its host, and ends them when it ends. One actor on each host."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

from pentad import __version__


class Agent:
    """A detached actor, pinned to its host by the host's resource. Ray starts it again when it dies.

    What it carries is small: commands, and whether processes live. Tokens and weights go through links of our
    own (execution/transport).
    """

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, module: str, line: bytes) -> tuple[int, int]:
        """Runs one of our modules, with a line on its standard input; its number here, and its process id."""
        process = subprocess.Popen(
            (sys.executable, "-m", module),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # seen as a process that has ended
            process.stdin.write(line)
            process.stdin.flush()
        self._processes.append(process)
        return len(self._processes) - 1, process.pid

    def poll(self, number: int) -> int | None:
        """How a process ended; None while it runs."""
        return self._processes[number].poll()

    def kill(self, number: int) -> None:
        """Ends a process, whatever it does."""
        process = self._processes[number]
        process.kill()
        process.wait()

    def about(self) -> dict[str, Any]:
        """What it is, and how many of its processes run."""
        running = [process.pid for process in self._processes if process.poll() is None]
        return {"version": __version__, "processes": running}
