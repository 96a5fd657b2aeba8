"""What is asked of a token reducer (coverage.md, interface 6, for texts)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pentad.model.relevance import Relevance
from pentad.types import Decision, Exactness, Layer

MOST_CANDIDATES = 24
"""Passages that a decision lists."""


class Surprise(Protocol):
    """The self-information of a text's tokens under a served model; the empty name is the reader's own."""

    async def __call__(self, text: str, model: str) -> Sequence[tuple[int, int, float]]:
        """Of each token, in order: begin and end in characters, and -log p in nats given what comes before.

        Tokens without a place of their own in the text, and the first, may be left out.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reducible:
    """A text that somebody will read for a goal: a tool's result, a document, never the user's own words."""

    text: str
    goal: str
    count: Callable[[str], int]
    """Tokens of a text."""
    relevance: Relevance
    surprise: Surprise | None = None
    """None where no model scores texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """A text that says less in fewer tokens, and where each part of it comes from."""

    text: str
    before_tokens: int
    after_tokens: int
    """At most `before_tokens`."""
    kept: tuple[tuple[int, int], ...]
    """Source map: the parts of the original that are kept, as [begin, end) in characters, in order."""
    scores: tuple[tuple[str, float | None], ...] = ()
    """Of each part considered, named by its beginning."""
    constraint: str = ""

    def decision(self, policy: str, layer: Layer, at_s: float) -> Decision:
        """The reduction as it is recorded; of many parts those with the best scores."""
        best = sorted(self.scores, key=lambda scored: -(scored[1] or 0.0))[:MOST_CANDIDATES]
        return Decision(
            layer=layer,
            policy=policy,
            subject="reduced text",
            chosen=f"{self.after_tokens} of {self.before_tokens} tokens",
            candidates=tuple(best),
            constraint=self.constraint,
            at_s=at_s,
        )


class TokenReducer(Protocol):
    """Shortens texts for a goal. Holds no state: equal input gives an equal reduction."""

    exactness: ClassVar[Exactness]

    @property
    def name(self) -> str: ...

    @property
    def max_tokens(self) -> int | None:
        """Texts of at most so many tokens are left as they are; None leaves every text as it is."""
        ...

    async def reduce(self, given: Reducible) -> Reduction:
        """The text within `max_tokens`, or as it is where it needs no reduction."""
        ...


def whole(given: Reducible, tokens: int) -> Reduction:
    """The text as it is."""
    span = ((0, len(given.text)),) if given.text else ()
    return Reduction(text=given.text, before_tokens=tokens, after_tokens=tokens, kept=span)
