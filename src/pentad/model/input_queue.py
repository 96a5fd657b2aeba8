"""InputQueue: inputs of many callers, computed in the batches that a policy makes of them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pentad.errors import PentadError
from pentad.resource.input_batching.base import InputBatcher, InputKind, WaitingInput
from pentad.types import Clock

Rows = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(slots=True)
class _Asked(Generic[T]):
    """One input of a caller."""

    value: T
    waits: WaitingInput
    row: Rows | None = None
    error: PentadError | None = None

    @property
    def done(self) -> bool:
        return self.row is not None or self.error is not None


class InputQueue(Generic[T]):
    """Callers in several threads share the batches of one model; a row depends on its own input alone.

    There is no thread of its own: whoever finds nobody computing computes the next batches, others' inputs
    among them, until its own are done. An input that the model refuses is refused to its caller alone.

    Args:
        compute: rows [B, E] of some inputs, in order; called by one thread at a time.
        batcher: makes the batches.
        kind: of all inputs.
        model: that computes them.
        size: of an input, in the batcher's terms.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[T]], Rows],
        batcher: InputBatcher,
        *,
        kind: InputKind,
        model: str,
        size: Callable[[T], int],
        clock: Clock = time.monotonic,
    ) -> None:
        self._compute = compute
        self._batcher = batcher
        self._kind: InputKind = kind
        self._model = model
        self._size = size
        self._clock = clock
        self._ids = itertools.count()
        self._turn = threading.Lock()
        self._books = threading.Lock()
        self._waiting: dict[int, _Asked[T]] = {}
        self.batches = 0
        """Computed so far."""
        self.padded = self.used = 0
        """Size of these batches, with and without what an encoder that pads would add."""

    def rows(self, values: Sequence[T]) -> list[Rows]:
        """A row per input, in order. Raises what `compute` raises of one of them."""
        asked = [self._ask(value) for value in values]
        with self._books:
            self._waiting |= {each.waits.id: each for each in asked}
        try:
            while not all(each.done for each in asked):
                with self._turn:
                    if not all(each.done for each in asked):
                        self._step()
        finally:
            with self._books:
                for each in asked:
                    self._waiting.pop(each.waits.id, None)
        found = []
        for each in asked:
            if each.error is not None:
                raise each.error
            assert each.row is not None
            found.append(each.row)
        return found

    def _ask(self, value: T) -> _Asked[T]:
        waits = WaitingInput(
            id=next(self._ids),
            kind=self._kind,
            model=self._model,
            size=max(1, self._size(value)),
            arrived_s=self._clock(),
        )
        return _Asked(value, waits)

    def _step(self) -> None:
        """Computes one batch of what waits."""
        with self._books:
            batch = self._batcher.next([each.waits for each in self._waiting.values()])
            taken = [self._waiting.pop(item.id) for item in batch.items]
        self.batches += 1
        self.padded += batch.padded
        self.used += sum(item.size for item in batch.items)
        self._fill(taken)

    def _fill(self, taken: Sequence[_Asked[T]]) -> None:
        """Computes some inputs at once; where that is refused, each by itself, so that one harms no other."""
        try:
            rows = self._compute([each.value for each in taken])
        except PentadError as error:
            if len(taken) == 1:
                taken[0].error = error
                return
            for each in taken:
                self._fill([each])
        else:
            for each, row in zip(taken, rows, strict=True):
                each.row = row
