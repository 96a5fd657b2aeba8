"""Suite bfcl-multiple: several functions are offered, and the right one has to be called right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.evaluation.bfcl import Bfcl


@dataclass(frozen=True, slots=True, kw_only=True)
class BfclMultiple(Bfcl):
    """Several functions are offered and one has to be called with possible arguments (BFCL v4, multiple).

    Source: Patil et al. 2025, "The Berkeley Function Calling Leaderboard".
    """

    name: ClassVar[str] = "bfcl-multiple"
    files: ClassVar[tuple[str, ...]] = ("bfcl-v4-multiple.jsonl", "bfcl-v4-multiple-answers.jsonl")
