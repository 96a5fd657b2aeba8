"""Trees as wide and as deep as the draft model is sure, with a fallback to the target that adjusts itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.errors import InvalidRequest
from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.runner import Runner
from pentad.execution.speculation.base import Ask, DraftPlan, Rates, Verdict
from pentad.execution.speculation.tree import TokenTree
from pentad.execution.speculation.verify import verify
from pentad.model.speculation.base import Exactness, Needs, Shape, check_drafts
from pentad.model.speculation.drafter import Drafter

_DEPTHS = (1, 2, 3, 4, 6, 8, 10, 12)
_LEAST, _MOST = 0.001, 0.9
"""Between which the fallback's confidence stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCad:
    """A small resident model drafts a tree until it is no longer sure of it; then the large one verifies.

    A token is drafted where the product of the probabilities up to it is above the fallback's confidence,
    so a sure draft is a long chain and an unsure one branches or ends. The fallback's confidence halves when
    all of the deepest path was right, and rises with the share of it that was not.
    Pays where a step of the target costs about the same however many tokens it verifies, as where its
    weights are read from disk. Costs one run of the draft model per level, and a target token per node.
    Exactness: lossless; drawn text is equally distributed.

    Source: LLMCad (Xu et al. 2023, arXiv:2309.04255, sections 3.2 and 3.3: token tree generation and
    verification, self-adaptive fallback). Our difference: one confidence for all sequences of an engine; it
    rises by the share that was wrong, taking the path's probability to be where it stood; nothing is drafted
    while the target verifies, since both share the processor.

    Raises InvalidRequest for a confidence outside 0 to 1, or another width than 1 to 4.
    """

    name: ClassVar[str] = "llmcad"
    exactness: ClassVar[Exactness] = "lossless"
    needs: ClassVar[Needs] = Needs(least_drafts=1, most_drafts=1)

    confidence: float = 0.1
    """At first: of a path, below which nothing is drafted. Above 0 to 1."""
    width: int = 2
    """Most branches of the first two levels; further ones have one each."""

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise InvalidRequest(f"confidence is {self.confidence}, must be above 0 and below 1")
        if not 1 <= self.width <= 4:
            raise InvalidRequest(f"width is {self.width}, must be 1 to 4")

    def start(self, vocab_size: int, drafts: Sequence[Runner]) -> PacedDrafter:
        check_drafts(self.name, self.needs, len(drafts))
        return PacedDrafter(self, drafts[0], vocab_size)


class PacedDrafter:
    """Drafts trees of the sequences of one engine, and learns how sure is sure enough."""

    lossless = True

    def __init__(self, strategy: LlmCad, draft: Runner, vocab_size: int) -> None:
        self._strategy = strategy
        self.confidence = strategy.confidence
        """Of a path, below which the target is asked."""
        self.drafter = Drafter(draft, vocab_size, least_path=lambda: self.confidence)

    @property
    def name(self) -> str:
        return self._strategy.name

    def options(self, rates: Rates, most_tokens: int) -> Sequence[DraftPlan]:
        """One plan per depth: the first child's rate along the trunk, the second's where there are two."""
        plans = []
        for depth in _DEPTHS:
            shape = _shape(self._strategy.width, depth)
            if len(shape) > most_tokens:
                break
            gain, reached = 0.0, 1.0
            for level in range(depth):
                reached *= min(1.0, sum(rates[: self._strategy.width if level < 2 else 1]))
                gain += reached
            plans.append(DraftPlan(tokens=len(shape), depth=depth, gain=gain, shape=shape))
        return plans

    def draft(self, asks: Sequence[Ask]) -> list[TokenTree | None]:
        return self.drafter.grow(asks, lambda ask: ask.plan.shape)

    def verify(self, tree: TokenTree, rows: Sequence[SampleRow], drawn: Sequence[Drawn]) -> Verdict:
        found = verify(tree, rows, drawn)
        wrong = 1 - len(found.path) / max(tree.depths)
        pace = self.confidence ** (1 - wrong) if wrong else self.confidence / 2
        self.confidence = min(_MOST, max(_LEAST, pace))
        return found

    def forget(self, id: str) -> None:
        self.drafter.forget(id)

    def close(self) -> None:
        self.drafter.close()


def _shape(width: int, depth: int) -> Shape:
    """Level by level: each node of the first two levels has `width` children, and each further one a child.
    Only the first child of a level goes on beyond the fourth, so that a deep tree stays narrow."""
    parents: list[int] = []
    level = [-1]
    for at in range(depth):
        children, first = width if at < 2 else 1, len(parents)
        parents += [node for node in level for _ in range(children)]
        level = list(range(first, len(parents)))[: len(parents) if at < 4 else 1]
    return tuple(parents)
