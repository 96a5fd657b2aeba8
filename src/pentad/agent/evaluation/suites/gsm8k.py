"""Suite gsm8k: grade-school mathematics, judged by the exact number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.evaluation.base import Case, CaseSource, Setting
from pentad.agent.evaluation.data import field_of, lines_of
from pentad.agent.state import RunState
from pentad.errors import InvalidRequest

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gsm8k:
    """Grade-school word problems, judged by the exact number in the answer.

    The number behind `####` or in `\\boxed{}` counts, else the last one of the answer; 18, 18.0 and $18 are
    the same. Source: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems".
    """

    file: str = "gsm8k-dev.jsonl"
    """Name of the file of questions and answers in the data folder."""

    name: ClassVar[str] = "gsm8k"
    files: ClassVar[tuple[str, ...]] = ("gsm8k-dev.jsonl",)
    extra: ClassVar[str] = ""
    setting: ClassVar[Setting] = Setting(
        instructions=(
            "Solve the problem step by step, briefly. End with a line that is '#### ' and the number alone."
        ),
        max_steps=2,
        max_tokens=400,
    )

    def cases(self, source: CaseSource) -> Sequence[Case]:
        """The questions in the order of the file."""
        made = []
        for place, item in enumerate(islice(lines_of(source, self.name, self.file), source.limit)):
            question, answer = (field_of(item, key, str, self.file) for key in ("question", "answer"))
            gold = number_in(answer)
            if gold is None:
                raise InvalidRequest(
                    f"the answer in line {place + 1} of {self.file!r} holds no number",
                    hint="give the published file",
                    param="data",
                )
            made.append(Case(id=f"gsm8k_{place}", goal=question, gold=str(gold), solution=(answer,)))
        return made

    async def judge(self, case: Case, state: RunState) -> Score:
        """1 for the same number, else 0."""
        found = number_in(state.answer)
        right = found is not None and found == Decimal(case.gold)
        return Score(value=float(right), about=f"answered {found}, right is {case.gold}")


def number_in(answer: str) -> Decimal | None:
    """The number that an answer comes to; None where it has none."""
    marked = re.findall(r"(?:####|\\boxed\{)\s*\$?\s*(-?[\d,.]*\d)", answer)
    found = marked or _NUMBER.findall(answer)
    try:
        return Decimal(found[-1].replace(",", "")) if found else None
    except InvalidOperation:
        return None
