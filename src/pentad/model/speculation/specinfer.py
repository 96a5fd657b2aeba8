"""Token trees: several guesses per place, of one or several draft models, verified together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import ClassVar

from pentad.errors import InvalidRequest
from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.runner import Runner
from pentad.execution.speculation.base import Ask, DraftPlan, Rates, Verdict
from pentad.execution.speculation.tree import MAX_NODES, Distribution, TokenTree
from pentad.execution.speculation.verify import verify
from pentad.model.speculation.base import Exactness, Needs, check_drafts, level_shape
from pentad.model.speculation.drafter import Drafter

_MOST_DRAFTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecInfer:
    """Each draft model grows a tree of a fixed shape; the trees are merged and verified in one step.

    Pays where the second and third guess are often right although the first is not, and the
    target's step hardly grows with its tokens. Costs one run of each draft model per level, and a
    target token per node. Exactness: lossless; drawn text is equally distributed.

    Source: SpecInfer (Miao et al., ASPLOS'24): expansion per level, merging (definition 3.2), tree
    attention, multi-step speculative sampling (algorithm 2). Our difference: siblings are tried in
    the order in which they were planned; the controller cuts the tree's depth.

    Raises InvalidRequest for a shape without nodes or of more than 64.
    """

    name: ClassVar[str] = "specinfer"
    exactness: ClassVar[Exactness] = "lossless"
    needs: ClassVar[Needs] = Needs(least_drafts=1, most_drafts=_MOST_DRAFTS)

    widths: tuple[int, ...] = (3, 2, 1, 1)
    """Children per node, level by level."""

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or len(level_shape(self.widths)) > MAX_NODES:
            raise InvalidRequest(
                f"widths {self.widths} make no tree of 1 to {MAX_NODES} nodes",
                hint="give fewer levels or children, each at least 1",
            )

    def start(self, vocab_size: int, drafts: Sequence[Runner]) -> TreeDrafter:
        check_drafts(self.name, self.needs, len(drafts))
        return TreeDrafter(self, [Drafter(runner, vocab_size, number=i) for i, runner in enumerate(drafts)])


class TreeDrafter:
    """Drafts and merges trees for the sequences of one engine."""

    lossless = True

    def __init__(self, strategy: SpecInfer, drafters: Sequence[Drafter]) -> None:
        self._strategy = strategy
        self.drafters = drafters

    @property
    def name(self) -> str:
        return self._strategy.name

    def options(self, rates: Rates, most_tokens: int) -> Sequence[DraftPlan]:
        """One plan per depth. Siblings of all draft models count by their rank."""
        widths, drafts = self._strategy.widths, len(self.drafters)
        plans: list[DraftPlan] = []
        gain, reached = 0.0, 1.0
        for depth, nodes in enumerate(accumulate(_level_sizes(widths)), 1):
            siblings = widths[depth - 1] * (drafts if depth == 1 else 1)
            reached *= min(1.0, sum(rates[:siblings]))
            gain += reached
            if nodes * drafts <= most_tokens:
                shape = level_shape(widths[:depth])
                plans.append(DraftPlan(tokens=nodes * drafts, depth=depth, gain=gain, shape=shape))
        return plans

    def draft(self, asks: Sequence[Ask]) -> list[TokenTree | None]:
        grown = [drafter.grow(asks, attrgetter("plan.shape")) for drafter in self.drafters]
        return [merge([tree for tree in trees if tree is not None]) for trees in zip(*grown, strict=True)]

    def verify(self, tree: TokenTree, rows: Sequence[SampleRow], drawn: Sequence[Drawn]) -> Verdict:
        return verify(tree, rows, drawn)

    def forget(self, id: str) -> None:
        for drafter in self.drafters:
            drafter.forget(id)

    def close(self) -> None:
        for drafter in self.drafters:
            drafter.close()


def _level_sizes(widths: Sequence[int]) -> list[int]:
    return list(accumulate(widths, lambda size, width: size * width))


def merge(trees: Sequence[TokenTree]) -> TokenTree | None:
    """One tree with every path of the given ones; None where there are none.

    Chosen tokens that stand behind the same path become one node. Drawn ones remain, since each
    draw is judged by its own distribution, but all that follows stands behind the first of them.
    """
    if len(trees) < 2:
        return trees[0] if trees else None
    drawn = bool(trees[0].proposals)
    tokens: list[int] = []
    parents: list[int] = []
    proposals: list[Distribution] = []
    places: list[dict[int, int]] = [{-1: -1} for _ in trees]
    first: dict[tuple[int, int], int] = {}
    for depth in range(1, max(max(tree.depths) for tree in trees) + 1):
        for tree, place in zip(trees, places, strict=True):
            for node in (i for i, at in enumerate(tree.depths) if at == depth):
                key = (place[tree.parents[node]], tree.tokens[node])
                place[node] = first.setdefault(key, len(tokens))
                if place[node] == len(tokens) or drawn:
                    tokens.append(key[1])
                    parents.append(key[0])
                    proposals += [tree.proposals[node]] if drawn else []
    return TokenTree(tokens=tuple(tokens), parents=tuple(parents), proposals=tuple(proposals))
