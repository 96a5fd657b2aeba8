"""What the machine could do at most, measured beside every benchmark of the engine."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from pentad.execution.native import limits as native
from pentad.execution.native.runner import NativeRunner
from pentad.execution.runner import Runner
from pentad.resource.profile import hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Measured limits, in units per second over all threads."""

    memory_bytes_per_s: float
    """Reading the packed weights over and over; the median over the rounds."""
    operations_per_s: dict[str, float]
    """Multiplications and additions by number format, registers only. Empty where not measured."""


class LimitProbe:
    """Measures the limits in turn with what they are held against. Some 100 ms a round.

    Args:
        runner: its weights are what is read.
        threads: as many as the runner uses.
    """

    def __init__(self, runner: Runner, threads: int) -> None:
        self._runner = runner
        self._threads = threads
        self._reads: list[float] = []

    def measure(self) -> None:
        """One round of reading."""
        runner = self._runner
        if isinstance(runner, NativeRunner):
            rate = native.read_bytes_per_s(runner.library, runner.packed_weights, self._threads)
        else:
            rate = hardware.numpy_read_bytes_per_s(256 << 20)
        self._reads.append(rate)

    def result(self) -> Limits:
        """The limits over all rounds."""
        runner, operations = self._runner, {}
        if isinstance(runner, NativeRunner):
            operations = native.operations_per_s(runner.library, self._threads)
        return Limits(memory_bytes_per_s=statistics.median(self._reads), operations_per_s=operations)


def weight_bytes(runner: Runner, files_bytes: int) -> int:
    """Bytes of weights that a decode step of one sequence must read.

    Args:
        files_bytes: bytes of the stored weights, taken for a runner that does not tell.
    """
    return runner.step_weight_bytes if isinstance(runner, NativeRunner) else files_bytes
