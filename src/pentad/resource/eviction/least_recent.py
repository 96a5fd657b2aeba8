"""Least recent use alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.resource.eviction.base import Resident


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastRecent:
    """The model that has been idle for the longest time leaves first, however dear its return is.

    The baseline that costs are measured against. Exactness: lossless.
    """

    name: ClassVar[str] = "least-recent"

    def keep_value(self, model: Resident) -> float:
        return -model.idle_s

    def cost(self, models: int) -> float:
        return 2e-6 * (models + 1)
