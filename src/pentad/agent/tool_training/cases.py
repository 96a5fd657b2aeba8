"""Cases that functions are trained on: requests with their answers, and when an answer is right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pentad.agent.evaluation.suites.gsm8k import number_in
from pentad.agent.example_lines import LineForm, example_lines, text_of

_NUMBER_ALONE = re.compile(r"\s*\$?-?[\d,]*\.?\d+\s*")
_CLOSE = Decimal("1e-6")
"""Relative difference up to which two numbers are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvableCase:
    """A request and its right answer."""

    request: str
    answer: str


def solves(given: str, right: str) -> bool:
    """Whether an answer is right: its last number where a number is right, else whether it says the words.

    Numbers are equal within a millionth; words are compared without regard to case and spaces.
    """
    if _NUMBER_ALONE.fullmatch(right):
        found, wanted = number_in(given), number_in(right)
        if found is None or wanted is None:
            return False
        return abs(found - wanted) <= _CLOSE * max(abs(wanted), Decimal(1))
    said, wanted_words = (" ".join(text.split()).casefold() for text in (given, right))
    return wanted_words in said


def _case(value: Any) -> SolvableCase:
    return SolvableCase(request=text_of(value, "input"), answer=text_of(value, "output"))


_FORM = LineForm(
    what="cases",
    wants="texts 'input' and 'output'",
    read=_case,
    hint='give JSON lines like {"input": "What is 23 times 19?", "output": "437"}',
    param="CASES",
)


def solvable_cases(name: str) -> tuple[SolvableCase, ...]:
    """The cases of a file. Raises InvalidRequest, with the line at fault."""
    return example_lines(name, _FORM)
