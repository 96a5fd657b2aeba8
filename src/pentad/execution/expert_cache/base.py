"""ExpertPolicy: which experts stay in fast memory, are brought ahead, or are computed where they lie."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Expert = tuple[int, int]
"""Layer and number."""
Side = Literal["here", "there"]
"""Computed in fast memory, or where the expert lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """The experts of a model, and the fast memory that they share."""

    counts: Mapping[int, int]
    """Layers that have experts, to how many."""
    nbytes: Mapping[int, int]
    """Such a layer to the bytes of one expert."""
    room_bytes: int
    """Fast memory for experts of all layers."""

    @property
    def total_bytes(self) -> int:
        """What all experts take."""
        return sum(count * self.nbytes[layer] for layer, count in self.counts.items())

    def quota(self, layer: int) -> int:
        """Experts of a layer that fit where every layer gets the same share of the room."""
        return int(self.room_bytes * self.counts[layer] / self.total_bytes)

    def after(self, layer: int) -> Sequence[int]:
        """The layers with experts behind this one, the nearest first."""
        return sorted(other for other in self.counts if other > layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertCosts:
    """What one expert costs on either side, as measured or as a profile says."""

    copy_bytes_per_s: float
    """Of the way from where experts lie to fast memory."""
    here_s: float
    """An expert's products in fast memory; rows add next to nothing, since reading its weights is what takes
    the time."""
    there_s: float
    """The same where it lies, for one row."""
    there_row_s: float = 0.0
    """What each further row adds there."""

    def copy_s(self, nbytes: int) -> float:
        return nbytes / self.copy_bytes_per_s

    def at_there_s(self, rows: int) -> float:
        """The expert's products for so many rows where it lies."""
        return self.there_s + (rows - 1) * self.there_row_s


class ExpertRun:
    """What a policy knows of one model that runs. A policy overrides what it decides; the rest is as here."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def begin(self, *, started: bool) -> None:
        """A step begins; `started`: a text begins in it."""

    def used(self, layer: int, rows: Mapping[int, int]) -> None:
        """Experts that rows go to now, each with how many."""

    def victim(self, layer: int, resident: Collection[Expert]) -> Expert:  # noqa: ARG002
        """Who gives way to an expert of that layer; `resident` is not empty, in the order of arrival."""
        return next(iter(resident))

    def ahead(self, layer: int, rows: Mapping[int, int], guessed: Sequence[int]) -> Sequence[Expert]:  # noqa: ARG002
        """Who is brought while that layer is computed, the most urgent first.

        Args:
            guessed: experts of the next layer with a router that the hidden states would choose now, most
                often chosen first; empty where nobody guesses.
        """
        return ()

    def side(self, expert: Expert, rows: int, costs: ExpertCosts) -> Side:  # noqa: ARG002
        """Where an expert that is not in fast memory is computed."""
        return "here"


class ExpertPolicy(Protocol):
    """Decides which experts stay in fast memory (coverage.md, interface 17)."""

    @property
    def name(self) -> str: ...

    @property
    def guesses(self) -> bool:
        """Whether `ahead` wants to be told what the next layer's router would choose."""
        ...

    def start(self, mixture: Mixture) -> ExpertRun:
        """The policy's knowledge of one model, which has nothing in fast memory yet."""
        ...
