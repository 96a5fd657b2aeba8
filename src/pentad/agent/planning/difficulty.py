"""How difficult a goal looks, from its words alone."""

from __future__ import annotations

import re
from typing import Final, Literal

from pentad.agent.planning.intent import parts

Difficulty = Literal["easy", "medium", "hard"]
LEVELS: Final[tuple[Difficulty, ...]] = ("easy", "medium", "hard")

_NUMBER = re.compile(r"\d[\d,.]*|\b(?:two|three|four|five|six|seven|eight|nine|ten|half|twice|dozen)\b", re.I)
_RELATION = re.compile(
    r"\b(?:each|every|per|more than|less than|fewer|than|times|total|altogether|left|remain|if|after|before|"
    r"percent|ratio|average|compare|prove|why|how many|how much)\b|%",
    re.I,
)
_MEDIUM, _HARD = 3.0, 8.0


def score(goal: str) -> float:
    """Points for each number, relation between things, further part and sentence, and for length; from 0."""
    sentences = len(re.findall(r"[.!?](?:\s|$)", goal))
    words = len(goal.split())
    further = parts(goal) - 1 + max(0, sentences - 1)
    return len(_NUMBER.findall(goal)) + len(_RELATION.findall(goal)) + further + words / 40


def difficulty_of(goal: str) -> Difficulty:
    """The level of a goal. Written for English word problems; elsewhere numbers and length decide."""
    points = score(goal)
    return "easy" if points < _MEDIUM else "medium" if points < _HARD else "hard"
