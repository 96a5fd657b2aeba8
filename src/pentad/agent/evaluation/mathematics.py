"""What the suites of mathematical problems share: one problem, one expression as the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.evaluation.base import Case, CaseSource, Setting
from pentad.agent.evaluation.data import field_of, lines_of
from pentad.agent.evaluation.equivalence import boxed, equivalent, require_equivalence
from pentad.agent.state import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Mathematics:
    """Base of suites whose answers are expressions: a subclass names its file.

    The expression in the last `\\boxed{}` counts, and must be equivalent to the right one.
    """

    extra: ClassVar[str] = "eval"
    files: ClassVar[tuple[str, ...]]
    """The one file: lines with `problem` and `answer`."""
    setting: ClassVar[Setting] = Setting(
        instructions="Solve the problem step by step, briefly. Put the final answer in \\boxed{}.",
        max_steps=2,
        max_tokens=1024,
    )

    @property
    def name(self) -> str:
        """The suite's name; a subclass gives it."""
        raise NotImplementedError

    def cases(self, source: CaseSource) -> Sequence[Case]:
        """The problems in the order of the file."""
        require_equivalence()
        (file,) = self.files
        made = []
        for place, item in enumerate(islice(lines_of(source, self.name, file), source.limit)):
            answer = item.get("answer")
            gold = str(answer) if isinstance(answer, int) else field_of(item, "answer", str, file)
            problem = field_of(item, "problem", str, file)
            solved = f"The answer is \\boxed{{{gold}}}."
            made.append(Case(id=f"{self.name}_{place}", goal=problem, gold=gold, solution=(solved,)))
        return made

    async def judge(self, case: Case, state: RunState) -> Score:
        """1 for an equivalent expression, else 0."""
        found = boxed(state.answer)
        right = found is not None and await equivalent(case.gold, found)
        return Score(value=float(right), about=f"answered {found!s:.80}, right is {case.gold:.80}")
