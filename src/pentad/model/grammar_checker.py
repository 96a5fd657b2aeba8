"""GrammarChecker: what compiling a foreign grammar says and costs, found out where it can do no harm."""

from __future__ import annotations

import atexit
import functools
import json
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pentad.model import grammar_worker

PROCESSES = 2
"""Compilations at a time, of all models and tenants together."""
MEMORY_BYTES = 256 << 20
"""What one compilation may take; then its process ends."""
WALL_PER_CPU = 20.0
"""A busy machine may stretch the CPU time that a job has by this much before its process is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What compiling one grammar says and costs."""

    error: str = ""
    """The compiler's words, or why it was stopped; empty where the grammar compiles."""
    possible: bool = True
    """Whether any text fits."""
    warnings: tuple[str, ...] = ()
    """What the compiler leaves unchecked."""
    cpu_s: float = 0.0
    size_bytes: int = 0
    """Memory that the compiled grammar takes, as measured."""
    stopped: bool = False
    """Whether the compilation passed its time or memory."""


class GrammarChecker:
    """Compiles grammars in processes that are ended when one takes too long or too much.

    The compiler can't be interrupted, and an abandoned thread would go on for minutes and gigabytes. So
    whatever a client can make costly is compiled in a process first; here it is compiled only when that
    went well, and then costs no more. Processes start when needed and are kept.

    Args:
        compile_s: CPU time of one compilation.
        memory_bytes: memory of one compilation.
        processes: how many may be compiled at a time; others wait.
    """

    def __init__(
        self, compile_s: float, memory_bytes: int = MEMORY_BYTES, processes: int = PROCESSES
    ) -> None:
        self.compile_s = compile_s
        self.memory_bytes = memory_bytes
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(processes):
            self._free.put(None)
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()

    def check(self, grammar: str, vocab_size: int, special: Mapping[str, int]) -> Verdict:
        """The verdict on a grammar source, for a vocabulary of that size and with those control tokens.

        Waits for a free process, then at most `compile_s` of CPU time.
        """
        job = json.dumps({"vocab": vocab_size, "special": dict(special), "grammar": grammar}).encode() + b"\n"
        worker = self._free.get()
        try:
            if worker is None or not worker.alive:
                self._end(worker)
                worker = None
                worker = _Worker(self.compile_s, self.memory_bytes)
                with self._lock:
                    self._workers.add(worker)
            answer = worker.ask(job, self.compile_s * WALL_PER_CPU)
            if answer is None or answer["last"]:
                self._end(worker)
                worker = None
        finally:
            self._free.put(worker)
        if answer is None:
            mib = self.memory_bytes >> 20
            return Verdict(
                error=f"takes more than {self.compile_s:g} s or {mib} MiB to compile, or nests too deep",
                possible=False,
                stopped=True,
                cpu_s=self.compile_s,
            )
        return Verdict(
            error=answer["error"],
            possible=answer["possible"],
            warnings=tuple(answer["warnings"]),
            cpu_s=answer["cpu_s"],
            size_bytes=answer["bytes"],
        )

    @property
    def processes(self) -> tuple[int, ...]:
        """Ids of the processes that live now."""
        with self._lock:
            return tuple(worker.pid for worker in self._workers if worker.alive)

    def close(self) -> None:
        """Ends all processes. A later check starts new ones."""
        with self._lock:
            workers, self._workers = self._workers, set()
        for worker in workers:
            worker.end()

    def _end(self, worker: _Worker | None) -> None:
        if worker is not None:
            worker.end()
            with self._lock:
                self._workers.discard(worker)


class _Worker:
    """One process, asked one thing at a time."""

    def __init__(self, compile_s: float, memory_bytes: int) -> None:
        script = str(Path(grammar_worker.__file__))
        self._process = subprocess.Popen(
            [sys.executable, "-I", script, str(compile_s), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, job: bytes, wall_s: float) -> dict[str, Any] | None:
        """The answer; None if the process ended or did not answer in time, after which it is of no use."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(job)
            self._process.stdin.flush()
            answers = select.poll()
            answers.register(self._process.stdout, select.POLLIN)
            if not answers.poll(max(wall_s, 1.0) * 1000):
                return None
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            return None
        return answer

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


@functools.cache
def shared_checker(compile_s: float) -> GrammarChecker:
    """The checker of this server: one for all its models, so that the bound holds for them together."""
    checker = GrammarChecker(compile_s)
    atexit.register(checker.close)
    return checker
