"""The answer at the end of a chain of thought, and the vote over several chains."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_MARKED = re.compile(
    r"(?:^\W*(?:final\s+)?answer\s*(?:is)?\s*[:=]|\bthe\s+(?:final\s+)?answer\s+is\s*:?|####|\\boxed\{)\s*(.+)",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def final_answer(text: str) -> str | None:
    """What stands behind the last `Answer:` of a text, also `The answer is`, `####` and a box; else None."""
    found = _MARKED.findall(text)
    said = found[-1].strip().strip("*$ \t").rstrip(".}").strip("*$ \t") if found else ""
    return said or None


def canonical_answer(answer: str) -> str:
    """The form in which answers are compared: one number without separators and needless zeros, or words."""
    numbers = _NUMBER.findall(answer)
    if len(numbers) == 1:
        value = float(numbers[0].replace(",", ""))
        return str(int(value)) if value.is_integer() else str(value)
    return " ".join(re.findall(r"\w+", answer.casefold()))


def vote(answers: Sequence[str | None]) -> tuple[int, tuple[float, ...]]:
    """The place of the answer that most agree with, the first of equals, and each one's share of the votes.

    None has no vote, and is taken only where no answer is there.

    Source: Wang et al. 2022, "Self-Consistency Improves Chain of Thought Reasoning", section 2.
    """
    said = [None if answer is None else canonical_answer(answer) for answer in answers]
    votes = Counter(each for each in said if each is not None)
    shares = tuple(0.0 if each is None else votes[each] / len(said) for each in said)
    return max(range(len(said)), key=lambda place: (shares[place], -place)), shares
