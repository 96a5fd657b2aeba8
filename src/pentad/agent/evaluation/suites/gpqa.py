"""Suite gpqa: graduate questions of science with four options."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.evaluation.multiple_choice import MultipleChoice, Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpqa(MultipleChoice):
    """Graduate questions of biology, physics and chemistry with four options, judged by the letter.

    Source: Rein et al. 2023, "GPQA", its diamond set. The options are shuffled by the seed.
    """

    name: ClassVar[str] = "gpqa"
    files: ClassVar[tuple[str, ...]] = ("gpqa-diamond.jsonl",)

    def question(self, item: dict[str, Any], chance: random.Random) -> Question:
        """The published columns, the right answer among three wrong ones."""
        right = str(item["Correct Answer"]).strip()
        options = [right, *(str(item[f"Incorrect Answer {i}"]).strip() for i in (1, 2, 3))]
        order = chance.sample(range(4), 4)
        shuffled = [options[place] for place in order]
        return Question(text=str(item["Question"]).strip(), options=shuffled, right=order.index(0))
