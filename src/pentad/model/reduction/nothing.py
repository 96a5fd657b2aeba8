"""None: every text stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.model.reduction.base import Reducible, Reduction, whole
from pentad.types import Exactness


@dataclass(frozen=True, slots=True, kw_only=True)
class NoReduction:
    """Leaves every text as it is.

    Exactness: lossless. Cost: none.
    """

    exactness: ClassVar[Exactness] = "lossless"
    name: ClassVar[str] = "none"
    max_tokens: ClassVar[int | None] = None

    async def reduce(self, given: Reducible) -> Reduction:
        """The whole text."""
        return whole(given, given.count(given.text))
