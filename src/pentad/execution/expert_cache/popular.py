"""Experts used most stay; rare ones can be computed where they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pentad.execution.expert_cache.base import Expert, ExpertCosts, ExpertRun, Mixture, Side

_RANKED_STEPS: Final = 4
"""Experts are ranked again after so many steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Popular:
    """Keeps the experts used most often, and computes a rare one where it lies if that is sooner.

    An expert that is missing costs its way into fast memory and its products there, or its products where it
    lies: the less of the two is taken for each, by measured costs. One that is computed where it lies takes
    nobody's place; once it is among the most used, it is brought while others are computed.

    Exactness: lossless where both sides compute alike.
    Cost: one count an expert.
    Source: Kamahori et al. 2024 (Fiddler), sections 3.2 and 3.3; there popularity is profiled on a text
    before the start, here it is counted as experts are used.
    """

    name: ClassVar[str] = "popular"
    guesses: ClassVar[bool] = False
    there: bool = True
    """Whether experts may be computed where they lie."""

    def start(self, mixture: Mixture) -> ExpertRun:
        return _PopularRun(mixture, self.there)


class _PopularRun(ExpertRun):
    def __init__(self, mixture: Mixture, there: bool) -> None:
        super().__init__(mixture)
        self._uses: Counter[Expert] = Counter()
        self._there = there
        self._fit = mixture.room_bytes // max(mixture.nbytes.values())
        self._best: frozenset[Expert] = frozenset()
        self._steps = 0

    def begin(self, *, started: bool) -> None:  # noqa: ARG002
        if self._steps % _RANKED_STEPS == 0:
            self._best = frozenset(expert for expert, _ in self._uses.most_common(self._fit))
        self._steps += 1

    def used(self, layer: int, rows: Mapping[int, int]) -> None:
        for number, count in rows.items():
            self._uses[layer, number] += count

    def victim(self, layer: int, resident: Collection[Expert]) -> Expert:  # noqa: ARG002
        return min(resident, key=lambda expert: self._uses[expert])

    def ahead(
        self,
        layer: int,
        rows: Mapping[int, int],
        guessed: Sequence[int],  # noqa: ARG002
    ) -> Sequence[Expert]:
        """Of those used now, who is among as many of the most used as the room holds."""
        return [(layer, number) for number in rows if (layer, number) in self._best]

    def side(self, expert: Expert, rows: int, costs: ExpertCosts) -> Side:
        brought_s = costs.copy_s(self.mixture.nbytes[expert[0]]) + costs.here_s
        return "there" if self._there and costs.at_there_s(rows) < brought_s else "here"
