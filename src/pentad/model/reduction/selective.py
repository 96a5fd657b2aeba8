"""Selective: of a long text the phrases that a small model would not have guessed, in order."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import ClassVar

from pentad.model.reduction.base import Reducible, Reduction, whole
from pentad.model.reduction.information import Span, information, means, most_within, told
from pentad.ranges import in_range
from pentad.types import Exactness

_PHRASE_WORDS = 4
_LONGEST_WORD = 40
"""Characters; what is longer, as in scripts without spaces, is cut."""
_NAMED_CHARACTERS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Selective:
    """Keeps the phrases with the most self-information under a model, within a budget of tokens.

    A phrase is up to four words between marks of punctuation; its self-information is the mean of its
    tokens' -log p, given what comes before. The text ends with how much there was.

    Source: Li et al. 2023, "Compressing Context to Enhance Inference Efficiency of Large Language Models"
    (Selective Context), section 3. Ours takes phrases by punctuation and length in place of a parser's noun
    phrases, and a budget in place of a percentile. Where no model scores texts, a word's information is how
    rare it is in the text. Exactness: lossy; the metric is the accuracy of answers beside the whole text.
    Cost: the scoring model reads a text that is too long once.
    """

    max_tokens: int = 256
    """Texts with more are reduced to at most so many."""
    model: str = ""
    """The served model that scores, a small one; empty takes the agent's own."""

    exactness: ClassVar[Exactness] = "lossy"
    name: ClassVar[str] = "selective"

    def __post_init__(self) -> None:
        in_range("max_tokens", self.max_tokens, least=16)

    async def reduce(self, given: Reducible) -> Reduction:
        """The text of at most `max_tokens`. Raises what the scoring model raises."""
        before = given.count(given.text)
        if before <= self.max_tokens:
            return whole(given, before)
        spans = phrases(given.text)
        scores = means(spans, await information(given, given.text, self.model))
        # In a thread: counting tokens of many candidates takes a while.
        kept = await asyncio.to_thread(most_within, given, spans, scores, self.max_tokens, before)
        text = told(given.text, kept, before)
        named = [given.text[begin:end][:_NAMED_CHARACTERS] for begin, end in spans]
        return Reduction(
            text=text,
            before_tokens=before,
            after_tokens=given.count(text),
            kept=tuple(kept),
            scores=tuple((name, round(score, 4)) for name, score in zip(named, scores, strict=True)),
            constraint=f"max_tokens {self.max_tokens}",
        )


def phrases(text: str) -> list[Span]:
    """Runs of up to four words that no mark of punctuation parts; together they are all but space."""
    found: list[Span] = []
    words = 0
    for word in re.finditer(rf"\S{{1,{_LONGEST_WORD}}}", text):
        ended = not found or text[found[-1][1] - 1] in ".,;:!?)" or "\n" in text[found[-1][1] : word.start()]
        if ended or words == _PHRASE_WORDS:
            found.append(word.span())
            words = 1
        else:
            found[-1] = (found[-1][0], word.end())
            words += 1
    return found
