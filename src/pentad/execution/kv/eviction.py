"""What the engine asks of an eviction policy of cached blocks. Strategies live in the resource layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class CachedText(NamedTuple):
    """The cached blocks of a request that has ended and whose run has announced another one.

    One is made of each text that is kept whenever a request ends: a tuple takes a fifth of the time.
    """

    tokens: int
    """Of its text, as far as it is cached."""
    blocks: int
    """That it still keeps, of the text's beginning."""
    idle_s: float
    """Since the request ended."""
    waiting: bool
    """Whether a request that goes on from it has come and waits for its turn."""
    whole: bool
    """Whether none of its blocks has been given up."""
    service_s: float
    """What its run has had of the engine so far: seconds of steps."""
    hinted_s: float | None
    """The pause that its sender announced."""
    mean_s: float | None
    """Pauses of the same tool and tenant lately, on average; None while none is known."""
    pauses: tuple[float, ...]
    """The latest of these, the shortest first; one that still lasts counts once it was given up."""


class KVEviction(Protocol):
    """Says which cached texts are worth their blocks until the next request of their run.

    The engine keeps what is expected to be used, as far as its limits allow, and takes blocks from the end
    of the text with the least value first, of the tenant that keeps most. What is not kept goes by recency.
    """

    @property
    def name(self) -> str: ...

    def expected_s(self, text: CachedText) -> float | None:
        """Seconds from now to the next use, at least 0 or somewhat overdue; None where it is not worth
        keeping, or not any more."""
        ...

    def keep_value(self, text: CachedText, expected_s: float) -> float:
        """How much it is worth to keep the end of the text, in any unit that is the same for all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """Keeps what runs have announced to need again; what is needed last goes first.

    A pause is expected to take what its sender says, else what such pauses took lately. A text is given up
    when its pause has taken twice as long. Exactness: lossless, answers do not depend on it.

    Source: keeping a program's cache over its tool calls for a time to live, as Continuum (2025) and
    InferCept (Abhyankar et al., ICML'24). Our difference: nothing is pinned; keeping only orders eviction,
    by expected time to the next use.
    """

    unknown_s: float = 5.0
    """A pause of which neither its sender nor earlier ones tell."""
    least_grace_s: float = 2.0
    """Beyond its expected use a text is kept for so long, or as long again as the pause if that is more."""
    longest_s: float = 600.0
    """What is needed later than that is not kept: others need the room sooner."""

    @property
    def name(self) -> str:
        return "announced"

    def expected_s(self, text: CachedText) -> float | None:
        pause_s = text.hinted_s if text.hinted_s is not None else text.mean_s
        if pause_s is None:
            pause_s = self.unknown_s
        over = text.idle_s > pause_s + max(self.least_grace_s, pause_s)
        return None if over or pause_s > self.longest_s else pause_s - text.idle_s

    def keep_value(self, text: CachedText, expected_s: float) -> float:  # noqa: ARG002
        return -expected_s
