"""Suite household: fetching, preparing and putting things away in a house of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.evaluation.base import Setting
from pentad.agent.evaluation.worlds import WorldSuite


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseholdSuite(WorldSuite):
    """Things to fetch, prepare and put away in a house of text; the house's state is the judge."""

    places: int = 8
    """Pieces of furniture, 5 to 14."""

    name: ClassVar[str] = "household"
    environment: ClassVar[str] = "household"
    setting: ClassVar[Setting] = Setting(
        instructions="You act in a house by calling tools, one at a time, until the goal is reached.",
        max_steps=30,
    )

    def options(self) -> dict[str, Any]:
        """How many places."""
        return {"places": self.places}
