"""What attention filters share: one of them as a frozen dataclass that is its own run, and cheap scores."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from pentad.execution.attention_filter import Chosen, Floats, Look, Mask
from pentad.execution.spec import ModelSpec
from pentad.types import Exactness


class RowFilter:
    """The usual filter: it remembers nothing from layer to layer, so it serves as its own run."""

    __slots__ = ()
    exactness: ClassVar[Exactness] = "lossy"

    def start(self, spec: ModelSpec) -> Self | None:
        del spec
        return self

    def choose(self, look: Look) -> Chosen:
        return Chosen(keep=look.all())

    def skip(self, weights: Floats) -> Mask | None:
        del weights
        return None

    def note(self, weights: Floats, outputs: Floats) -> None:
        """Nothing is remembered."""


def rounded(x: Floats, bits: int) -> Floats:
    """Each row as whole steps of so many bits, sign included."""
    most = np.float32(2 ** (bits - 1) - 1)
    step = np.abs(x).max(axis=-1, keepdims=True) / most
    found: Floats = np.rint(x / np.where(step > 0, step, 1)) * step
    return found


def softmax(scores: Floats) -> Floats:
    """Over the last axis; every row has a number that is not -inf."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found: Floats = raised / raised.sum(axis=-1, keepdims=True)
    return found


def pairs(look: Look) -> int:
    """Of a query head's token and a position that it may see."""
    return int(look.visible.sum()) * len(look.queries)
