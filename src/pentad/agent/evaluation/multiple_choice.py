"""What suites of questions with given options share: one letter is right."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.evaluation.base import Case, CaseSource, Setting
from pentad.agent.evaluation.data import lines_of
from pentad.agent.state import RunState
from pentad.errors import InvalidRequest

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question, its options, and which of them is right."""

    text: str
    options: Sequence[str]
    right: int
    """Place in `options`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleChoice(ABC):
    """Base of suites that ask for a letter: a subclass names its file and reads a line of it."""

    extra: ClassVar[str] = ""
    files: ClassVar[tuple[str, ...]]
    setting: ClassVar[Setting] = Setting(
        instructions=(
            "Answer the multiple-choice question. Think step by step, briefly, "
            'then finish with "The answer is (X)", where X is the letter of the right option.'
        ),
        max_steps=2,
        max_tokens=512,
    )

    @property
    def name(self) -> str:
        """The suite's name; a subclass gives it."""
        raise NotImplementedError

    @abstractmethod
    def question(self, item: dict[str, Any], chance: random.Random) -> Question:
        """The question of a line. Raises KeyError, TypeError or ValueError for one that has none."""

    def cases(self, source: CaseSource) -> Sequence[Case]:
        """The questions in the order of the file; where options are shuffled, the seed does it."""
        (file,) = self.files
        made = []
        for place, item in enumerate(islice(lines_of(source, self.name, file), source.limit)):
            try:
                asked = self.question(item, random.Random(f"{source.seed} {place}"))
                letter, options = (
                    LETTERS[asked.right],
                    [f"{LETTERS[i]}. {o}" for i, o in enumerate(asked.options)],
                )
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise InvalidRequest(
                    f"line {place + 1} of {file!r} is no question of {self.name!r}: {error!r:.200}",
                    hint="give the published file as JSON lines",
                    param="data",
                ) from None
            made.append(
                Case(
                    id=f"{self.name}_{place}",
                    goal="\n".join([asked.text, *options]),
                    gold=letter,
                    solution=(f"The answer is ({letter}).",),
                )
            )
        return made

    async def judge(self, case: Case, state: RunState) -> Score:
        """1 for the right letter, else 0."""
        found = letter_in(state.answer)
        return Score(value=float(found == case.gold), about=f"answered {found}, right is {case.gold}")


def letter_in(answer: str) -> str | None:
    """The letter that an answer comes to: as asked for, else in a box, else a letter alone; None for none.

    Source: the extraction of MMLU-Pro's own evaluation, with its order of patterns.
    """
    for pattern in (
        r"answer is:?\s*\**\(?([A-Z])\b",
        r"\\boxed\{\(?([A-Z])\)?\}",
        r"[aA]nswer:\s*\(?([A-Z])\b",
    ):
        if found := re.findall(pattern, answer):
            return str(found[-1])
    alone = re.findall(r"(?<![A-Za-z'])([A-Z])(?![A-Za-z'])", answer)
    return str(alone[-1]) if alone and len(answer.strip()) <= 4 else None
