"""Input batching: what a policy sees of the inputs that wait, and the batch that it makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

InputKind = Literal["text", "pair", "image", "audio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingInput:
    """One input that is to be computed whole, in one pass."""

    id: int
    kind: InputKind
    """Its type: inputs of two types are never in one batch."""
    model: str
    """The model that its type is computed by."""
    size: int
    """Tokens, patches or frames; at least 1."""
    arrived_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InputBatch:
    """Inputs of one type and model, each filled up to the size of the longest where the model pads."""

    items: tuple[WaitingInput, ...]

    @property
    def padded(self) -> int:
        """Size of the whole, padding included."""
        return max(item.size for item in self.items) * len(self.items)

    @property
    def waste(self) -> float:
        """Share of the padded size that is padding, 0 to 1."""
        return 1 - sum(item.size for item in self.items) / self.padded


class InputBatcher(Protocol):
    """Says what is computed next. Equal states, equal batches."""

    @property
    def name(self) -> str: ...

    @property
    def most_size(self) -> int:
        """Padded size of a batch of several inputs, at most."""
        ...

    def next(self, waiting: Sequence[WaitingInput]) -> InputBatch:
        """The next batch of at least one waiting input, given in order of arrival.

        The first one is always in it, so that nobody waits for ever.
        """
        ...

    def cost(self, waiting: int) -> float:
        """Seconds that one choice among so many inputs takes, of the right order, on one core."""
        ...


def alike(waiting: Sequence[WaitingInput]) -> list[WaitingInput]:
    """The first input and all that can be computed together with it, in order of arrival."""
    first = waiting[0]
    return [item for item in waiting if (item.kind, item.model) == (first.kind, first.model)]
