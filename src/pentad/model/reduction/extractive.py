"""Extractive: of a long text the sentences that matter for the goal, word for word and in order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.model.reduction.base import Reducible, Reduction, whole
from pentad.ranges import in_range
from pentad.types import Exactness

Span = tuple[int, int]
"""[begin, end) in characters."""

_ENDS = re.compile(r"(?<=[.!?])\s+(?=\S)|(?<=[。！？])|\s*\n\s*")
_PIECE_WORDS = 24
"""A sentence with more words, as in tables and code, is cut into pieces of so many."""
_GAP = " [...] "
"""Stands where something is left out."""
_NAMED_CHARACTERS = 40
_MOST_MISSES = 8
"""Sentences in a row that do not fit any more, after which the text is taken to be full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extractive:
    """Keeps the sentences nearest to the goal, and the first, within a budget of tokens.

    `[...]` stands where something is left out, and the text ends with how much there was. The nearest
    sentence has the first place, then the beginning, then the next nearest as long as they fit; what has
    nothing to do with the goal does not fill the room that is left. The order of the text is kept.

    Source: extractive compression of retrieved text, e.g. Xu et al. 2023, RECOMP, section 3.1
    (extractive compressor). Ours takes a general encoder, or shared words where none is served, in
    place of a trained one. Exactness: lossy; the metric is how often what the goal asks for is still
    there. Cost: one embedding per sentence of a text that is too long, once.
    """

    max_tokens: int = 256
    """Texts with more are reduced to at most so many."""
    keep_first: int = 1
    """Sentences at the beginning that stay if they fit: a title, or what it is about."""

    exactness: ClassVar[Exactness] = "lossy"
    name: ClassVar[str] = "extractive"

    def __post_init__(self) -> None:
        in_range("max_tokens", self.max_tokens, least=16)
        in_range("keep_first", self.keep_first, least=0)

    async def reduce(self, given: Reducible) -> Reduction:
        """The text of at most `max_tokens`; at least its nearest sentence, if that fits."""
        before = given.count(given.text)
        if before <= self.max_tokens:
            return whole(given, before)
        spans = list(sentences(given.text))
        texts = [given.text[begin:end] for begin, end in spans]
        scores = await given.relevance.scores([given.goal], texts)
        # In a thread: counting tokens of many candidates takes a while.
        chosen = await asyncio.to_thread(self._choose, given, spans, scores, before)
        text = joined(given.text, [spans[i] for i in chosen], before)
        return Reduction(
            text=text,
            before_tokens=before,
            after_tokens=given.count(text),
            kept=tuple(spans[i] for i in chosen),
            scores=tuple(
                (each[:_NAMED_CHARACTERS], round(score, 4)) for each, score in zip(texts, scores, strict=True)
            ),
            constraint=f"max_tokens {self.max_tokens}",
        )

    def _choose(
        self, given: Reducible, spans: Sequence[Span], scores: Sequence[float], before: int
    ) -> list[int]:
        """The places of the sentences that stay, in the text's order."""
        best = max(range(len(spans)), key=lambda i: (scores[i], -i), default=0)
        # Where nothing has to do with the goal, the beginning is as good as anything.
        apart = [i for i in range(len(spans)) if scores[i] > 0 or scores[best] == 0]
        ranked = sorted(apart, key=lambda i: (-scores[i], i))
        chosen: list[int] = []
        misses = 0
        for place in dict.fromkeys([*ranked[:1], *range(min(self.keep_first, len(spans))), *ranked]):
            # Counting the whole is exact for every tokenizer; sums of parts are not.
            wished = sorted([*chosen, place])
            if given.count(joined(given.text, [spans[i] for i in wished], before)) <= self.max_tokens:
                chosen, misses = wished, 0
            elif (misses := misses + 1) >= _MOST_MISSES:
                break
        return chosen


def joined(text: str, spans: Sequence[Span], tokens: int) -> str:
    """The parts of a text, with marks for what lies between, and how many tokens the whole had."""
    parts, at = [], 0
    for begin, end in spans:
        between = text[at:begin]
        parts += [between if not between.strip() else _GAP, text[begin:end]]
        at = end
    if text[at:].strip():
        parts.append(_GAP)
    return "".join(parts).strip() + f"\n[reduced from {tokens} tokens]"


def sentences(text: str) -> Iterator[Span]:
    """Where the sentences and lines of a text lie; long ones in pieces. Together they are all but space."""
    begin = 0
    for end, after in [*((m.start(), m.end()) for m in _ENDS.finditer(text)), (len(text), len(text))]:
        yield from _pieces(text, begin, end)
        begin = after


def _pieces(text: str, begin: int, end: int) -> Iterator[Span]:
    words = [m.span() for m in re.finditer(r"\S+", text[begin:end])]
    for start in range(0, len(words), _PIECE_WORDS):
        group = words[start : start + _PIECE_WORDS]
        yield begin + group[0][0], begin + group[-1][1]
