"""What reducers share that keep the parts of a text with the most self-information."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from pentad.model.reduction.base import Reducible

Span = tuple[int, int]
"""[begin, end) in characters."""
Information = Sequence[tuple[int, int, float]]
"""Of each token begin, end and -log p in nats."""


async def information(given: Reducible, text: str, model: str) -> Information:
    """The self-information of the text's tokens under a served model; where none scores, by rarity.

    Then a word's information is how rare it is in the text itself. Raises what the model raises.
    """
    if given.surprise is not None:
        return await given.surprise(text, model)
    words = [(m.start(), m.end(), m.group().lower()) for m in re.finditer(r"\w+", text)]
    counts = Counter(word for _, _, word in words)
    return [(begin, end, math.log(len(words) / counts[word])) for begin, end, word in words]


def means(spans: Sequence[Span], tokens: Information) -> list[float]:
    """For each span the mean self-information of the tokens that begin in it; 0 for one without."""
    found = []
    at = 0
    for begin, end in spans:
        while at < len(tokens) and tokens[at][1] <= begin:
            at += 1
        inside = []
        while at < len(tokens) and tokens[at][0] < end:
            inside.append(tokens[at][2])
            at += 1
        found.append(sum(inside) / len(inside) if inside else 0.0)
    return found


def most_within(
    given: Reducible, spans: Sequence[Span], scores: Sequence[float], limit: int, before: int
) -> list[Span]:
    """The most spans, best first, with which the text keeps to so many tokens; in the text's order."""
    ranked = sorted(range(len(spans)), key=lambda i: (-scores[i], i))
    low, high = 0, len(ranked)
    while low < high:
        middle = (low + high + 1) // 2
        if given.count(told(given.text, [spans[i] for i in sorted(ranked[:middle])], before)) <= limit:
            low = middle
        else:
            high = middle - 1
    return [spans[i] for i in sorted(ranked[:low])]


def told(text: str, spans: Sequence[Span], tokens: int) -> str:
    """The spans with a space or line end where there was one, and how many tokens the whole had."""
    parts, last = [], 0
    for begin, end in spans:
        between = text[last:begin]
        parts += ["\n" if "\n" in between else " " if between else "", text[begin:end]]
        last = end
    return "".join(parts).strip() + f"\n[reduced from {tokens} tokens]"
