"""The self-information of a text's tokens, scored in parts that a model's context holds."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator

from pentad.execution.backend import TokenLogprob

_PART_CHARACTERS = 2_000
"""Of one scored part; about 500 tokens, which every served model reads."""


async def surprises(
    text: str, score: Callable[[str], Awaitable[tuple[TokenLogprob, ...]]]
) -> list[tuple[int, int, float]]:
    """Of each token begin and end in characters and -log p; the first of a part, which has none, is left out.

    Args:
        score: the tokens of a text with their log probabilities.
    """
    found = []
    for begin, end in parts(text):
        part = text[begin:end]
        data, bounds = part.encode("utf-8", "replace"), _characters(part)
        at = 0
        for number, token in enumerate(await score(part)):
            # Tokens that are not of the text, such as one for its beginning, stand in no place of it.
            if not token.data or data[at : at + len(token.data)] != token.data:
                continue
            start, at = at, at + len(token.data)
            if number:
                found.append((begin + bounds[start], begin + bounds[at], -token.logprob))
    return found


def parts(text: str) -> Iterator[tuple[int, int]]:
    """Pieces of bounded length, cut at spaces where there are any."""
    begin = 0
    while begin < len(text):
        end = min(len(text), begin + _PART_CHARACTERS)
        if end < len(text):
            spaces = [m.end() for m in re.finditer(r"\s", text[begin:end])]
            end = begin + (spaces[-1] if spaces else end - begin)
        yield begin, end
        begin = end


def _characters(part: str) -> list[int]:
    """For each byte of the text, and its end, the character that it is of."""
    found = []
    for place, letter in enumerate(part):
        found += [place] * len(letter.encode("utf-8", "replace"))
    return [*found, len(part)]
