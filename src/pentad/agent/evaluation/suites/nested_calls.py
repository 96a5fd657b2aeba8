"""Suite nested-calls: stories whose answer takes several calls, each fed by those before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.evaluation.base import Setting
from pentad.agent.evaluation.worlds import WorldSuite


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedCalls(WorldSuite):
    """Stories that take two to four nested calls of arithmetic; the last result is the judge."""

    name: ClassVar[str] = "nested-calls"
    environment: ClassVar[str] = "computed"
    setting: ClassVar[Setting] = Setting(
        instructions="Compute by calling functions, one at a time; feed each result into the next call.",
        max_steps=8,
    )
