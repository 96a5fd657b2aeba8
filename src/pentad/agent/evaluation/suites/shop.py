"""Suite shop: buying what is described in a web shop of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.evaluation.base import Setting
from pentad.agent.evaluation.worlds import WorldSuite


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopSuite(WorldSuite):
    """One thing to find, configure and buy in a web shop of text; what was bought is the judge."""

    products: int = 24
    """Things that are sold, 12 to 200."""

    name: ClassVar[str] = "shop"
    environment: ClassVar[str] = "shop"
    setting: ClassVar[Setting] = Setting(
        instructions="You use a web shop by calling tools, one at a time, until the right thing is bought.",
        max_steps=15,
    )

    def options(self) -> dict[str, Any]:
        """As the suite was told."""
        return {"products": self.products}
