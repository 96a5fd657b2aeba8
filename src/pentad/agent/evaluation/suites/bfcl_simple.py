"""Suite bfcl-simple: one function is offered, and has to be called right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.evaluation.bfcl import Bfcl


@dataclass(frozen=True, slots=True, kw_only=True)
class BfclSimple(Bfcl):
    """One function is offered and has to be called with possible arguments (BFCL v4, simple Python).

    Source: Patil et al. 2025, "The Berkeley Function Calling Leaderboard".
    """

    name: ClassVar[str] = "bfcl-simple"
    files: ClassVar[tuple[str, ...]] = ("bfcl-v4-simple_python.jsonl", "bfcl-v4-simple_python-answers.jsonl")
