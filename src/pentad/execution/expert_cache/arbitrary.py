"""Any expert gives way: what other policies are measured against."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.expert_cache.base import Expert, ExpertRun, Mixture


@dataclass(frozen=True, slots=True, kw_only=True)
class Arbitrary:
    """Lets a random expert go, and brings nothing ahead.

    Exactness: lossless.
    Cost: none beside the experts that are read.
    """

    name: ClassVar[str] = "arbitrary"
    guesses: ClassVar[bool] = False
    seed: int = 0
    """Of the choice."""

    def start(self, mixture: Mixture) -> ExpertRun:
        return _ArbitraryRun(mixture, self.seed)


class _ArbitraryRun(ExpertRun):
    def __init__(self, mixture: Mixture, seed: int) -> None:
        super().__init__(mixture)
        self._random = random.Random(seed)

    def victim(self, layer: int, resident: Collection[Expert]) -> Expert:  # noqa: ARG002
        return self._random.choice(sorted(resident))
