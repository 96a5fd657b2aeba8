"""Suite system: finding things out on a machine, and putting its files in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.evaluation.base import Setting
from pentad.agent.evaluation.worlds import WorldSuite


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemSuite(WorldSuite):
    """Files to look through, write, move and clean up; every file, or the number submitted, is the judge."""

    size: int = 14
    """Files on the machine, 8 to 100."""

    name: ClassVar[str] = "system"
    environment: ClassVar[str] = "system"
    setting: ClassVar[Setting] = Setting(
        instructions="You work on a machine by calling tools, one at a time, until the task is done.",
        max_steps=24,
    )

    def options(self) -> dict[str, Any]:
        """As the suite was told."""
        return {"size": self.size}
