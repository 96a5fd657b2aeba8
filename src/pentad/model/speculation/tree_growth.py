"""TreeGrowth: a tree while a draft model makes it, level by level."""

from __future__ import annotations

from collections.abc import Sequence

from pentad.execution.speculation.tree import Distribution, TokenTree
from pentad.model.speculation.base import Shape
from pentad.model.speculation.continuations import Continuation


class TreeGrowth:
    """From a planned shape to a tree: planned nodes get tokens where the draft model has any for them.

    Tokens drawn twice among siblings stay, as drawing twice is what the plan was, but what was
    planned behind the second stands behind the first: that branch is tried more often instead of
    computed twice.

    Args:
        shape: planned, level by level.
        replacement: whether siblings are drawn independently.
    """

    def __init__(self, shape: Shape, *, replacement: bool = True) -> None:
        self._replacement = replacement
        self._planned: dict[int, list[int]] = {}
        """Children that are planned behind a node that is there."""
        self._shape_children: list[list[int]] = [[] for _ in range(len(shape) + 1)]
        for child, parent in enumerate(shape):
            self._shape_children[parent + 1].append(child)
        self._planned[-1] = self._shape_children[0]
        self._tokens: list[int] = []
        self._parents: list[int] = []
        self._proposals: list[Distribution] = []
        self._paths: dict[int, tuple[int, ...]] = {-1: ()}
        self._reached: dict[int, float] = {-1: 1.0}
        self._level: list[int] = [-1]

    def wants(self) -> list[int]:
        """The nodes of the latest level that have children planned."""
        return [node for node in self._level if self._planned.get(node)]

    def planned(self, node: int) -> list[int]:
        """The planned children of the node, by their numbers in the shape."""
        return self._planned[node]

    def token(self, node: int) -> int:
        return self._tokens[node]

    def parent(self, node: int) -> int:
        return self._parents[node]

    def path(self, node: int) -> tuple[int, ...]:
        """Tokens up to the node."""
        return self._paths[node]

    def reached(self, node: int) -> float:
        """The product of the probabilities up to the node, by the draft model."""
        return self._reached[node]

    def add(self, choices: Sequence[tuple[int, Sequence[Continuation]]]) -> None:
        """The next level: what was chosen behind each of the nodes that wanted it, in that order."""
        self._level = []
        for parent, chosen in choices:
            known: dict[int, int] = {}
            for planned, choice in zip(self._planned[parent], chosen, strict=False):
                node = len(self._tokens)
                self._tokens.append(choice.token)
                self._parents.append(parent)
                self._paths[node] = (*self._paths[parent], choice.token)
                self._reached[node] = self._reached[parent] * choice.probability
                if choice.proposal is not None:
                    self._proposals.append(choice.proposal)
                first = known.setdefault(choice.token, node)
                self._planned.setdefault(first, []).extend(self._shape_children[planned + 1])
                if first == node:
                    self._level.append(node)

    def tree(self) -> TokenTree | None:
        """What has grown; None when nothing has."""
        if not self._tokens:
            return None
        return TokenTree(
            tokens=tuple(self._tokens),
            parents=tuple(self._parents),
            proposals=tuple(self._proposals),
            replacement=self._replacement,
        )
