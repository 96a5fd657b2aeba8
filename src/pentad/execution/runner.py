"""Runner: the one call a device answers per engine step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pentad.errors import BackendFailed
from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.spec import ModelSpec
from pentad.types import Decision


class CacheLost(BackendFailed):
    """The step failed, and with it went all that the KV cache and the states held; the next one succeeds.

    Args:
        decision: what the runner did to go on.
    """

    def __init__(self, message: str, decision: Decision) -> None:
        super().__init__(message, hint="try again")
        self.decision = decision


class Runner(Protocol):
    """Owns the weights and the KV blocks of one model on one device.

    Implementations: plain PyTorch here, native kernels, the simulated device of the resource
    layer. A runner is driven by one thread.
    """

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def block_size(self) -> int:
        """Tokens per KV block."""
        ...

    @property
    def num_blocks(self) -> int: ...

    @property
    def block_bytes(self) -> int:
        """Bytes of one KV block over all layers, keys and values."""
        ...

    def step(self, batch: RaggedBatch, rows: Sequence[SampleRow]) -> list[Drawn]:
        """Computes the batch, writes its keys and values, draws one token per logit row.

        A row that no token can be drawn from says so in its `Drawn`. What raises fails the whole step;
        after CacheLost all sequences are computed again.
        """
        ...

    def logits(self, batch: RaggedBatch) -> npt.NDArray[np.float32]:
        """Like `step` without drawing: the raw logits [R, V], for scoring and parity tests."""
        ...

    def copy_block(self, source: int, target: int) -> None:
        """Copies one KV block over all layers (copy on write)."""
        ...

    def copy_slots(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copies single KV slots over all layers, source to target, in the order given.

        Keys move as they are: a rotary key belongs to its position, not to its slot. No target is
        the source of a later pair, so that copying all at once gives the same.
        """
        ...

    def close(self) -> None:
        """Gives the memory back; the runner is not used again."""
        ...


@runtime_checkable
class HeadRunner(Runner, Protocol):
    """A runner that takes batches with `head_slots`, as KV policies need it."""

    @property
    def keeps_scores(self) -> bool:
        """Whether the attention that slots get is counted."""
        ...

    def move_entries(self, moves: npt.NDArray[np.int64]) -> None:
        """Copies entries of single heads: [n, 2] source and target, `page * block_size + entry` each.

        All are read before any is written.
        """
        ...

    def page_scores(self, pages: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """[n, block_size] attention that the slots of pages [n] have had since each was written, summed over
        queries and the query heads that share them. Raises ValueError where none is counted."""
        ...


@runtime_checkable
class StateRunner(Protocol):
    """A runner that holds states of sequences, in rows that batches name (`state_rows`, `state_saves`)."""

    def copy_state(self, source: int, target: int) -> None:
        """Copies the state in one row to another over all layers."""
        ...


@runtime_checkable
class PhasedRunner(Protocol):
    """A runner that can tell where the time of its steps goes."""

    def set_timed(self, timed: bool) -> None:
        """Whether the steps that follow are timed; off at first, so that a step pays nothing."""
        ...

    def phase_seconds(self) -> dict[str, float]:
        """Seconds that the timed steps have spent in each phase, in the order of a step."""
        ...


@runtime_checkable
class CountingRunner(Protocol):
    """A runner with gauges and counters of its own."""

    def stats(self) -> dict[str, float]:
        """By name; what only grows ends in `_total`. Any thread may ask."""
        ...


class WorkView(Protocol):
    """A sequence of a step, as far as a runner needs it that computes nothing."""

    @property
    def tokens(self) -> Sequence[int]: ...

    @property
    def num_computed(self) -> int: ...


@runtime_checkable
class WorkRunner(Protocol):
    """A runner that needs no arrays, since it only lets time pass: a simulated one."""

    def step_work(self, work: Sequence[tuple[WorkView, int]]) -> list[Drawn]:
        """Takes a step of so many tokens of each sequence; a draw for each whose last token is among them."""
        ...


@runtime_checkable
class SteadyRunner(Protocol):
    """A runner that knows what steps to come will take and draw, if each computes one token of the same
    sequences: a simulated one."""

    def decode_seconds(self, contexts: Sequence[int], steps: int) -> npt.NDArray[np.float64]:
        """[at most steps] seconds of such steps.

        Args:
            contexts: KV slots of each sequence once the first of the steps has written its own.
            steps: how many are asked for; at least 1.
        """
        ...

    def decode(
        self, tokens: Sequence[int], contexts: Sequence[int], seconds: npt.NDArray[np.float64]
    ) -> list[list[int]]:
        """Takes those steps without letting time pass; what each draws, by sequence.

        Args:
            tokens: the last token of each sequence, which the first step computes.
            contexts: as for `decode_seconds`.
            seconds: of the steps, as `decode_seconds` gave them.
        """
        ...


@runtime_checkable
class EmbeddingRunner(Protocol):
    """A runner that takes batches with `embeddings`."""

    @property
    def takes_embeddings(self) -> bool: ...


def takes_embeddings(runner: Runner) -> bool:
    """Whether it computes inputs that are no tokens."""
    return isinstance(runner, EmbeddingRunner) and runner.takes_embeddings
