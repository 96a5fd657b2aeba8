"""AttentionFilter: which cached positions a step attends to, told from something cheaper than attention.

Strategies live in the model layer. Arrays are [H, T, S]: query heads, new tokens of one text, its slots so
far.

    choose(look)   before scores: which positions are scored in full, and with which numbers
    skip(weights)  behind the softmax: which of their values are read
    note(...)      behind the sum: what later layers may want to know

Every row (head and token) is decided from what it sees alone, so batches and chunks change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from pentad.execution.spec import ModelSpec
from pentad.types import Exactness

Floats: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]
FULL_BITS = 16
"""Of a number of a key or value that is read in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One layer of some new tokens of a text."""

    layer: int
    queries: Floats
    """[H, T, D], their positions in them."""
    keys: Floats
    """[H, S, D], each key/value head once per query head that reads it."""
    visible: Mask
    """[T, S] what a token may see; itself included."""
    scale: float
    """Of products of queries and keys."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, T and S."""
        return len(self.queries), *self.visible.shape

    def all(self) -> Mask:
        """[H, T, S] everything that may be seen."""
        return np.broadcast_to(self.visible, self.shape)

    def scores(self, queries: Floats, keys: Floats) -> Floats:
        """[H, T, S] of these in place of the true ones; -inf where nothing may be seen."""
        products = queries @ keys.transpose(0, 2, 1) * np.float32(self.scale)
        found: Floats = np.where(self.visible, products, np.float32(-np.inf))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What is attended to of what may be seen. A token itself always is."""

    keep: Mask
    """[H, T, S]"""
    read_bits: int = 0
    """Of keys, to choose with."""
    scores: Floats | None = None
    """[H, T, S] in place of the exact ones."""
    score_bits: int | None = None
    """Read for `scores`; None: all numbers of every key kept."""
    log_shares: Floats | None = None
    """[H, T, S] added to the scores: how many positions one that was sampled stands for."""
    heads: Mask | None = None
    """[H, T] heads that give anything; None: all."""


@dataclass(slots=True)
class FilterCounts:
    """What was attended to since the start, in pairs of a query head's token and a position."""

    seen: int = 0
    """That could be seen."""
    scored: int = 0
    """Whose key was multiplied in full."""
    weighted: int = 0
    """Whose value was added."""
    read_bits: int = 0
    """Of keys and values, what the choice itself read included."""
    full_bits: int = 0
    """That attention without a filter reads."""

    @property
    def scored_fraction(self) -> float:
        return self.scored / max(1, self.seen)

    @property
    def read_fraction(self) -> float:
        return self.read_bits / max(1, self.full_bits)


class FilterRun(Protocol):
    """A filter at work on some tokens of a text, through all layers of one step."""

    def choose(self, look: Look) -> Chosen: ...

    def skip(self, weights: Floats) -> Mask | None:
        """[H, T, S] whose values are read, of these weights; None: all that have one."""
        ...

    def note(self, weights: Floats, outputs: Floats) -> None:
        """Takes a layer's weights [H, T, S] and what they gave [H, T, D]."""
        ...


class AttentionFilter(Protocol):
    """Decides which cached positions a step attends to."""

    @property
    def name(self) -> str: ...

    @property
    def exactness(self) -> Exactness: ...

    def start(self, spec: ModelSpec) -> FilterRun | None:
        """For some tokens of a text; None: nothing is ever left out."""
        ...


@runtime_checkable
class FilteringRunner(Protocol):
    """A runner that lets a filter say what later steps attend to."""

    def filter_attention(self, filter: AttentionFilter) -> None:
        """Raises Incompatible for a model that no filter applies to."""
        ...
