"""CoarseToFine: first the sentences, then the words, that a small model would not have guessed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.model.reduction.base import Reducible, Reduction, whole
from pentad.model.reduction.extractive import sentences
from pentad.model.reduction.information import Information, Span, information, means, most_within, told
from pentad.ranges import in_range
from pentad.types import Exactness

_NAMED_CHARACTERS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class CoarseToFine:
    """Keeps whole sentences up to a wide budget, then the words in them up to the narrow one.

    The budget controller gives the first sentence its place and lets sentences compete by their mean
    self-information for `coarse` times `max_tokens`; what is left is scored again, now that other words
    come before, and words go by their own. The goal and the instructions are never touched.

    Source: Jiang et al. 2023, "LLMLingua", sections 3.1 (budget controller) and 3.2 (iterative token-level
    compression). Ours drops words in place of tokens, scores twice in place of once per segment, and ends
    with how much there was. Exactness: lossy; the metric is the accuracy of answers beside the whole text.
    Cost: the scoring model reads the text once and what the first pass left once more.
    """

    max_tokens: int = 256
    """Texts with more are reduced to at most so many."""
    model: str = ""
    """The served model that scores, a small one; empty takes the agent's own."""
    coarse: float = 2.0
    """What whole sentences may take in the first pass, in `max_tokens`; at least 1."""

    exactness: ClassVar[Exactness] = "lossy"
    name: ClassVar[str] = "coarse-to-fine"

    def __post_init__(self) -> None:
        in_range("max_tokens", self.max_tokens, least=16)
        in_range("coarse", self.coarse, least=1)

    async def reduce(self, given: Reducible) -> Reduction:
        """The text of at most `max_tokens`. Raises what the scoring model raises."""
        text, before = given.text, given.count(given.text)
        if before <= self.max_tokens:
            return whole(given, before)
        spans = list(sentences(text))
        scores = means(spans, await information(given, text, self.model))
        if scores:
            scores[0] = max(scores) + 1.0
        wide = int(self.coarse * self.max_tokens)
        # In a thread: counting tokens of many candidates takes a while.
        left = await asyncio.to_thread(most_within, given, spans, scores, wide, before)
        left = left or spans
        words = [word for span in left for word in _words(text, span)]
        joined = " ".join(text[begin:end] for begin, end in left)
        again = _placed(await information(given, joined, self.model), left)
        kept = await asyncio.to_thread(
            most_within, given, words, means(words, again), self.max_tokens, before
        )
        made = told(text, kept, before)
        named = [text[begin:end][:_NAMED_CHARACTERS] for begin, end in spans]
        return Reduction(
            text=made,
            before_tokens=before,
            after_tokens=given.count(made),
            kept=tuple(kept),
            scores=tuple((name, round(score, 4)) for name, score in zip(named, scores, strict=True)),
            constraint=f"max_tokens {self.max_tokens}",
        )


def _words(text: str, span: Span) -> Iterator[Span]:
    """The words of a span; what is longer than 40 characters, as in scripts without spaces, is cut."""
    begin, end = span
    for word in re.finditer(r"\S{1,40}", text[begin:end]):
        yield begin + word.start(), begin + word.end()


def _placed(tokens: Information, spans: Sequence[Span]) -> list[tuple[int, int, float]]:
    """Tokens of the spans joined by single spaces, each where it stands in the whole text."""
    found = []
    at = number = 0
    for begin, end, surprise in tokens:
        while number < len(spans) and begin > at + spans[number][1] - spans[number][0]:
            at += spans[number][1] - spans[number][0] + 1
            number += 1
        if number < len(spans):
            shift = spans[number][0] - at
            found.append((begin + shift, end + shift, surprise))
    return found
