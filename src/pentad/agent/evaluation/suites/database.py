"""Suite database: questions and changes in a shop's tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.evaluation.base import Setting
from pentad.agent.evaluation.worlds import WorldSuite


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSuite(WorldSuite):
    """Questions to answer and changes to make in SQL; the tables, or the number submitted, are the judge."""

    rows: int = 40
    """Orders in the tables, 10 to 500."""

    name: ClassVar[str] = "database"
    environment: ClassVar[str] = "database"
    setting: ClassVar[Setting] = Setting(
        instructions="You work on an SQLite database by calling tools until the task is done.",
        max_steps=12,
    )

    def options(self) -> dict[str, Any]:
        """As the suite was told."""
        return {"rows": self.rows}
