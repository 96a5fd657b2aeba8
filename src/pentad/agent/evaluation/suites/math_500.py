"""Suite math-500: competition problems whose answer is an expression, judged by symbolic equivalence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.evaluation.mathematics import Mathematics


@dataclass(frozen=True, slots=True, kw_only=True)
class Math500(Mathematics):
    """Competition problems whose answer is an expression, judged by symbolic equivalence.

    Source: Hendrycks et al. 2021, "MATH"; the 500 problems of Lightman et al. 2023.
    """

    name: ClassVar[str] = "math-500"
    files: ClassVar[tuple[str, ...]] = ("math-500.jsonl",)
