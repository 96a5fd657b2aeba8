"""Suite kitchen: directing a team of cooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.evaluation.base import Setting
from pentad.agent.evaluation.worlds import WorldSuite


@dataclass(frozen=True, slots=True, kw_only=True)
class KitchenSuite(WorldSuite):
    """A team of cooks to direct so that all dishes are done in time; the kitchen's state is the judge."""

    cooks: int = 2
    """2 to 4."""

    dishes: int = 3
    """2 to 8."""

    name: ClassVar[str] = "kitchen"
    environment: ClassVar[str] = "kitchen"
    setting: ClassVar[Setting] = Setting(
        instructions="You direct a kitchen by calling tools, one at a time, until every dish is done.",
        max_steps=80,
    )

    def options(self) -> dict[str, Any]:
        """As the suite was told."""
        return {"cooks": self.cooks, "dishes": self.dishes}
