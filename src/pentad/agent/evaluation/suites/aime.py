"""Suite aime: problems of the AIME 2024, whose answers are whole numbers up to 999."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.evaluation.mathematics import Mathematics


@dataclass(frozen=True, slots=True, kw_only=True)
class Aime(Mathematics):
    """Problems of the AIME 2024, whose answers are whole numbers up to 999.

    Source: American Invitational Mathematics Examination 2024.
    """

    name: ClassVar[str] = "aime"
    files: ClassVar[tuple[str, ...]] = ("aime-2024.jsonl",)
