"""GrammarChecker: what compiling a foreign grammar says and costs, found out where it can do no harm."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Mapping
from dataclasses import dataclass

from pentad.model import grammar_worker
from pentad.model.guarded import GuardedProcesses

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
        arguments = (str(compile_s), str(memory_bytes))
        self._processes = GuardedProcesses(grammar_worker.__file__, arguments, processes)

    def check(self, grammar: str, vocab_size: int, special: Mapping[str, int]) -> Verdict:
        """The verdict on a grammar source, for a vocabulary of that size and with those control tokens.

        Waits for a free process, then at most `compile_s` of CPU time.
        """
        job = {"vocab": vocab_size, "special": dict(special), "grammar": grammar}
        found = self._processes.ask(job, self.compile_s * WALL_PER_CPU)
        if found is None:
            mib = self.memory_bytes >> 20
            return Verdict(
                error=f"takes more than {self.compile_s:g} s or {mib} MiB to compile, or nests too deep",
                possible=False,
                stopped=True,
                cpu_s=self.compile_s,
            )
        answer, _ = found
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
        return self._processes.ids

    def close(self) -> None:
        """Ends all processes. A later check starts new ones."""
        self._processes.close()


@functools.cache
def shared_checker(compile_s: float) -> GrammarChecker:
    """The checker of this server: one for all its models, so that the bound holds for them together."""
    checker = GrammarChecker(compile_s)
    atexit.register(checker.close)
    return checker
