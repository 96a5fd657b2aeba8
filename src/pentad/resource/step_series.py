"""Steps of pure decoding in a row: the numbers that their times depend on, as arrays.

Between two steps every sequence grows by one slot, so all that changes is what counts slots. The arithmetic
is that of single steps in the same order, so the times are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pentad.resource.step_shape import StepShape, decode_groups, one_decode_group

Numbers = float | npt.NDArray[np.float64]
"""The same for every step, or [steps]."""


@dataclass(frozen=True)
class DecodeSeries:
    """Steps that each compute one token of the same sequences."""

    contexts: Sequence[int]
    """Slots of each sequence in the first step."""
    steps: int
    first: StepShape

    @classmethod
    def of(cls, contexts: Sequence[int], steps: int) -> DecodeSeries:
        """The series that begins with these contexts."""
        shape = StepShape.from_sequences([(1, context) for context in contexts], rows=len(contexts))
        return cls(contexts, steps, shape)

    @cached_property
    def slots(self) -> npt.NDArray[np.float64]:
        """[steps] slots of all contexts; of decodes the same number as pairs."""
        return self.first.slots + len(self.contexts) * np.arange(self.steps, dtype=np.float64)

    @cached_property
    def _groups(self) -> npt.NDArray[np.float64]:
        """[2, steps] attention calls, and slots padded to the longest of their call."""
        longest, shortest, last = max(self.contexts), min(self.contexts), self.steps - 1
        # Over the steps the ratio of the longest to the shortest only falls.
        if one_decode_group(longest, shortest, floor=False) or one_decode_group(longest + last, 0):
            steps = np.arange(self.steps, dtype=np.float64)
            return np.array([np.ones(self.steps), (longest + steps) * len(self.contexts)])
        found = [decode_groups([c + step for c in self.contexts]) for step in range(self.steps)]
        return np.array(found, np.float64).T

    def count(self, name: str) -> Numbers:
        """A field of StepShape, or `steps`, over the series."""
        if name == "steps":
            return 1
        if name in ("slots", "decode_pairs"):
            return self.slots
        if name in ("calls", "padded_slots"):
            calls, padded = np.split(self._groups, 2)
            found: npt.NDArray[np.float64] = calls[0] if name == "calls" else padded[0] - self.slots
            return found
        return int(getattr(self.first, name))


def summed(terms: Iterable[Numbers]) -> Numbers:
    """The sum from the first to the last."""
    total: Numbers = 0.0
    for term in terms:
        total = total + term
    return total


def each_step(
    seconds: Callable[[StepShape], float], contexts: Sequence[int], steps: int
) -> npt.NDArray[np.float64]:
    """[steps] the same by asking for each step."""
    shapes = (
        StepShape.from_sequences([(1, context + step) for context in contexts], rows=len(contexts))
        for step in range(steps)
    )
    return np.array([seconds(shape) for shape in shapes])
