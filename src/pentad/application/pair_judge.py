"""judged: which of two answers to a question a model finds better, whichever stands first."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Final

from pentad.application.program import Model
from pentad.types import Usage

_FIRST, _SECOND = "A", "B"
_TASK: Final = (
    "You compare two answers to a question. Judge how correct, helpful and to the point they are; neither "
    "their order nor their length matters. Answer A or B, the letter of the better one."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a model makes of two answers."""

    first: float
    """How probable it finds the first to be the better one, 0 to 1, over both orders."""
    leaning: float
    """How much more it likes what is shown first, -1 to 1; judgements lean by their order, and this much was
    averaged out."""
    usage: tuple[Usage, ...]
    """Of the model's calls."""

    @property
    def better(self) -> int | None:
        """0 or 1, the place of the better one; None where both are alike."""
        return None if self.first == 0.5 else int(self.first < 0.5)


async def judged(model: Model, question: str, first: str, second: str) -> Judgement:
    """The model's judgement, asked in both orders at once.

    It is the share of the letters' probabilities, so that a weak preference counts for little. Two equal
    answers come out alike.

    Source: FastChat's LLM judge (Zheng et al. 2023, "Judging LLM-as-a-Judge", section 3.4: swap positions).
    Theirs asks for a reasoned verdict and calls a tie where the orders disagree; ours averages probabilities.

    Args:
        model: opened; must report log probabilities.
    """
    shown = await asyncio.gather(
        _prefers_shown_first(model, question, first, second),
        _prefers_shown_first(model, question, second, first),
    )
    (forwards, one), (backwards, other) = shown
    return Judgement(
        first=(forwards + 1 - backwards) / 2, leaning=forwards + backwards - 1, usage=(one, other)
    )


async def _prefers_shown_first(model: Model, question: str, a: str, b: str) -> tuple[float, Usage]:
    program = model.program()
    program.system(_TASK)
    program.user(f"Question: {question}\n\nAnswer A: {a}\n\nAnswer B: {b}\n\nWhich is better, A or B?")
    await program.select("letter", [_FIRST, _SECOND], normalized="none")
    scores = program.scores["letter"]
    return 1 / (1 + math.exp(min(60.0, scores[_SECOND] - scores[_FIRST]))), program.usage
