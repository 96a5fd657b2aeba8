"""Suite crafting: gathering materials and crafting by recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.evaluation.base import Setting
from pentad.agent.evaluation.worlds import WorldSuite


@dataclass(frozen=True, slots=True, kw_only=True)
class CraftingSuite(WorldSuite):
    """Materials to gather and recipes that build on one another; what is had in the end is the judge."""

    name: ClassVar[str] = "crafting"
    environment: ClassVar[str] = "crafting"
    setting: ClassVar[Setting] = Setting(
        instructions="You gather and craft by calling tools, one at a time, until the goal is reached.",
        max_steps=60,
    )
