"""Trees of the best shape: planned from measured acceptance by rank, sized by measured costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import ClassVar

from pentad.errors import InvalidRequest
from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.runner import Runner
from pentad.execution.speculation.base import Ask, DraftPlan, Rates, Verdict
from pentad.execution.speculation.tree import TokenTree
from pentad.execution.speculation.verify import verify
from pentad.model.speculation.base import Exactness, Needs, check_drafts
from pentad.model.speculation.drafter import Drafter
from pentad.model.speculation.planning import TreeTable

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 63)
_ROUNDED_TO = 0.025
"""Rates are rounded to this, so that trees are planned anew only when they would change."""
_WORTH = 0.01
"""Relative gain that a further level must add to be offered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequoia:
    """Grows the tree that, at the measured acceptance, yields the most tokens for its size and depth.

    Pays where trees do, and finds their shape itself. Costs what `specinfer` costs, and some
    milliseconds of planning when acceptance has changed. Exactness: lossless; drawn text is equally
    distributed.

    Source: Sequoia (Chen et al., NeurIPS'24): tree by dynamic programming from the acceptance by
    rank (section 3.1), sampling without replacement (algorithm 2), size and depth from the
    hardware's measured times (section 3.3). Our difference: both are measured while serving, and
    the controller chooses for all sequences of the batch together.

    Raises InvalidRequest for a depth of less than 1.
    """

    name: ClassVar[str] = "sequoia"
    exactness: ClassVar[Exactness] = "lossless"
    needs: ClassVar[Needs] = Needs(least_drafts=1, most_drafts=1)

    most_depth: int = 8
    """Levels of a tree, at most."""

    def __post_init__(self) -> None:
        if self.most_depth < 1:
            raise InvalidRequest(f"most_depth is {self.most_depth}, must be at least 1")

    def start(self, vocab_size: int, drafts: Sequence[Runner]) -> ShapedDrafter:
        check_drafts(self.name, self.needs, len(drafts))
        return ShapedDrafter(self, Drafter(drafts[0], vocab_size, replacement=False))


class ShapedDrafter:
    """Drafts planned trees for the sequences of one engine."""

    lossless = True

    def __init__(self, strategy: Sequoia, drafter: Drafter) -> None:
        self._strategy = strategy
        self.drafter = drafter

    @property
    def name(self) -> str:
        return self._strategy.name

    def options(self, rates: Rates, most_tokens: int) -> Sequence[DraftPlan]:
        return _options(_rounded(rates), most_tokens, self._strategy.most_depth)

    def draft(self, asks: Sequence[Ask]) -> list[TokenTree | None]:
        return self.drafter.grow(asks, attrgetter("plan.shape"))

    def verify(self, tree: TokenTree, rows: Sequence[SampleRow], drawn: Sequence[Drawn]) -> Verdict:
        return verify(tree, rows, drawn)

    def forget(self, id: str) -> None:
        self.drafter.forget(id)

    def close(self) -> None:
        self.drafter.close()


def _rounded(rates: Rates) -> Rates:
    return tuple(round(rate / _ROUNDED_TO) * _ROUNDED_TO for rate in rates)


@lru_cache(maxsize=256)
def _options(rates: Rates, most_tokens: int, most_depth: int) -> tuple[DraftPlan, ...]:
    """The best tree of each size, and the shallower ones of that size that lose little by it."""
    table = TreeTable(rates, most_tokens, most_depth)
    plans: list[DraftPlan] = []
    for size in _SIZES:
        if size > most_tokens:
            break
        gain = 0.0
        for depth in range(1, min(size, most_depth) + 1):
            if table.gain(size, depth) > gain * (1 + _WORTH):
                gain = table.gain(size, depth)
                shape = table.shape(size, depth)
                plans.append(DraftPlan(tokens=len(shape), depth=depth, gain=gain, shape=shape))
    return tuple(plans)
