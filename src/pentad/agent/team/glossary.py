"""Glossary: the terms and the goal that a team has agreed on, and whether somebody means something else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pentad.model.relevance import words
from pentad.ranges import in_range

Nearness = Callable[[str, str], float]
"""How near two texts are in meaning, 0 to 1."""

_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")
_CONTENT = 4
"""Letters from which a word has content: shorter ones are mostly articles and prepositions."""
_NOT = frozenset({"not", "no", "never", "without", "except", "don't", "cannot", "none", "avoid"})


def by_words(a: str, b: str) -> float:
    """The share of the shorter text's words, but for the shortest, that the other has; with no encoder."""
    left, right = (({w for w in words(text) if len(w) >= _CONTENT}) for text in (a, b))
    return len(left & right) / min(len(left), len(right)) if left and right else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One way in which what somebody understood is not what was meant."""

    about: str
    """A term of the glossary, `numbers`, `negation` or `goal`."""
    meant: str
    understood: str
    score: float
    """The nearness that was too low; 0 for numbers and negation, which are compared exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a team holds its members to: a glossary, and how near a restatement must be to the goal.

    A receiver restates what it was asked and what the terms mean to it, as lines `TERM: MEANING` after its
    restatement; `drifts` compares both before anybody acts.

    Source: survey III-A, semantic consistency. Ours checks what an encoder of sentences is blind to, as
    numbers and negation, exactly, since "ten" and "not ten" are neighbours to it.
    """

    goal: str
    terms: Mapping[str, str] = field(default_factory=dict)
    """What each term means in this team."""
    least: float = 0.35
    """The nearness, 0 to 1, below which a meaning counts as another."""

    def __post_init__(self) -> None:
        in_range("least", self.least, least=0, most=1)

    def drifts(self, restated: str, near: Nearness = by_words) -> tuple[Drift, ...]:
        """Where a restatement is not what was meant; empty where it is."""
        said, meanings = self._parted(restated)
        found = []
        for term, meant in self.terms.items():
            understood = meanings.get(term.casefold())
            if understood is not None:
                found += _compared(term, meant, understood, near, self.least)
        return (*found, *_compared("goal", self.goal, said, near, self.least)) if said else tuple(found)

    def _parted(self, restated: str) -> tuple[str, dict[str, str]]:
        """The restatement itself, and the meanings in it."""
        named = {term.casefold() for term in self.terms}
        said, meanings = [], {}
        for line in restated.splitlines():
            key, colon, meaning = line.strip(" \t-*").partition(":")
            if colon and key.strip().casefold() in named:
                meanings[key.strip().casefold()] = meaning.strip()
            else:
                said.append(line)
        return "\n".join(said).strip(), meanings


def _compared(about: str, meant: str, understood: str, near: Nearness, least: float) -> list[Drift]:
    found = []
    numbers = [sorted({_plain(n) for n in _NUMBER.findall(text)}) for text in (meant, understood)]
    if numbers[0] != numbers[1]:
        found.append(
            Drift(about="numbers", meant=", ".join(numbers[0]), understood=", ".join(numbers[1]), score=0.0)
        )
    negated = [bool(_NOT & set(re.findall(r"[\w']+", text.lower()))) for text in (meant, understood)]
    if negated[0] != negated[1]:
        found.append(Drift(about="negation", meant=meant, understood=understood, score=0.0))
    score = near(meant, understood)
    if score < least and words(meant) != words(understood):
        found.append(Drift(about=about, meant=meant, understood=understood, score=score))
    return found


def _plain(number: str) -> str:
    return number.replace(",", "").rstrip(".")
