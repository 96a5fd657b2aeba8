"""GuardedProcesses: foreign bytes handled where they can do no harm, in processes that may be killed.

A job is one line of JSON and the bytes that its key `payload` counts; an answer likewise. Processes start
when needed and are kept; one that does not answer in time, or ends, is replaced.
"""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from typing import Any, Final

PAYLOAD: Final = "payload"
"""Of a job or an answer: how many bytes follow its line."""
_PART_BYTES: Final = 1 << 20
Answer = tuple[dict[str, Any], bytes]


class GuardedProcesses:
    """Asks processes that run one script; at most so many at a time, others wait.

    Args:
        script: the file that they run, isolated from the environment and the working directory.
        arguments: of it.
        processes: how many may work at a time.
    """

    def __init__(self, script: str, arguments: tuple[str, ...], processes: int) -> None:
        self._command = (sys.executable, "-I", script, *arguments)
        self._free: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(processes):
            self._free.put(None)
        self._lock = threading.Lock()
        self._processes: set[_Process] = set()

    def ask(self, job: dict[str, Any], wall_s: float, payload: bytes = b"") -> Answer | None:
        """The answer, behind a wait for a free process; None where the process was ended by the job.

        Args:
            job: plain data; the answer's key `last` true says that the process wants to be replaced.
            wall_s: how long it may take.
        """
        process = self._free.get()
        answer: Answer | None = None
        try:
            if process is None or not process.alive:
                self._end(process)
                process = None
                process = _Process(self._command)
                with self._lock:
                    self._processes.add(process)
            answer = process.ask(job, wall_s, payload)
            if answer is None or answer[0].get("last"):
                self._end(process)
                process = None
        finally:
            self._free.put(process)
        return answer

    @property
    def ids(self) -> tuple[int, ...]:
        """Of the processes that live now."""
        with self._lock:
            return tuple(process.pid for process in self._processes if process.alive)

    def close(self) -> None:
        """Ends all processes. A later job starts new ones."""
        with self._lock:
            processes, self._processes = self._processes, set()
        for process in processes:
            process.end()

    def _end(self, process: _Process | None) -> None:
        if process is not None:
            process.end()
            with self._lock:
                self._processes.discard(process)


class _Process:
    """One process, asked one thing at a time."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, job: dict[str, Any], wall_s: float, payload: bytes) -> Answer | None:
        """The answer; None if the process ended or did not answer in time, after which it is of no use."""
        assert self._process.stdin is not None
        line = json.dumps({**job, PAYLOAD: len(payload)} if payload else job).encode() + b"\n"
        try:
            for data in (line, payload):
                rest = memoryview(data)
                while rest:
                    rest = rest[self._process.stdin.write(rest) or 0 :]
            return self._answer(time.monotonic() + max(wall_s, 1.0))
        except (OSError, ValueError):
            return None

    def _answer(self, until_s: float) -> Answer | None:
        held = bytearray()
        while (end := held.find(b"\n")) < 0:
            if not self._more(held, until_s):
                return None
        head: dict[str, Any] = json.loads(held[:end])
        del held[: end + 1]
        while len(held) < head.get(PAYLOAD, 0):
            if not self._more(held, until_s):
                return None
        return head, bytes(held)

    def _more(self, held: bytearray, until_s: float) -> bool:
        """Reads what has come; False where nothing comes any more, or not in time."""
        assert self._process.stdout is not None
        answers = select.poll()
        answers.register(self._process.stdout, select.POLLIN)
        if not answers.poll(max(0.0, until_s - time.monotonic()) * 1000):
            return False
        part = os.read(self._process.stdout.fileno(), _PART_BYTES)
        held += part
        return bool(part)

    def end(self) -> None:
        """Kills the process and waits for it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not written stays unwritten
                    continue
