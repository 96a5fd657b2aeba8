"""Suite mmlu-pro: questions of fourteen fields with up to ten options."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.evaluation.multiple_choice import MultipleChoice, Question


@dataclass(frozen=True, slots=True, kw_only=True)
class MmluPro(MultipleChoice):
    """Questions of fourteen fields with up to ten options, judged by the letter.

    Source: Wang et al. 2024, "MMLU-Pro". Ours asks without worked examples.
    """

    name: ClassVar[str] = "mmlu-pro"
    files: ClassVar[tuple[str, ...]] = ("mmlu-pro.jsonl",)

    def question(self, item: dict[str, Any], chance: random.Random) -> Question:  # noqa: ARG002
        """As the line has it, in its order."""
        options = [str(option) for option in item["options"] if option != "N/A"]
        return Question(text=str(item["question"]), options=options, right=int(item["answer_index"]))
