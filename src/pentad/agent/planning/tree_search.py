"""Monte Carlo tree search over sequences of actions, whoever it is that expands a node."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Path = tuple[int, ...]
"""From the root: the place of each action among those of its node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """What is known of a node once it has been looked at."""

    value: float
    """How good the situation is, 0 to 1."""
    actions: tuple[tuple[str, float], ...] = ()
    """What can be done next, each with its prior; priors need not add up to 1."""
    done: bool = False
    """Whether the goal is reached or nothing more can be done: it has no children."""


@dataclass(slots=True, kw_only=True)
class Node:
    """One node of the tree, and what its simulations came to."""

    prior: float = 1.0
    visits: int = 0
    total: float = 0.0
    expansion: Expansion | None = None
    children: list[Node] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean value of the simulations through it; 0 without any."""
        return self.total / self.visits if self.visits else 0.0


Expand = Callable[[Path], Expansion | None]
"""What is known of a node; None where it must be asked for first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A tree after some simulations."""

    root: Node
    simulations: int
    wanted: Path | None
    """The node that must be looked at before the search can go on; None where it is over."""

    def best(self) -> Path:
        """The most visited way from the root; of equals the better, then the first."""
        return tuple(_best(self.root))


def search(expand: Expand, *, simulations: int, exploration: float, depth: int) -> Searched:
    """The tree after so many simulations, or after those that can be made with what is known.

    Each goes down by value and prior to a node that was not looked at, takes its value, and gives it to
    all nodes on the way. Equal answers of `expand` make equal trees, so a search that was cut off goes on
    where it was.

    Source: Silver et al. 2017 (PUCT, without rollouts); Zhao et al. 2023, "Large Language Models as
    Commonsense Knowledge for Large-Scale Task Planning", whose policy is the prior as well.
    """
    root = Node()
    for count in range(simulations):
        path, way = _down(root, exploration)
        leaf = way[-1]
        if leaf.expansion is None:
            found = expand(path)
            if found is None:
                return Searched(root=root, simulations=count, wanted=path)
            leaf.expansion = found
            if not found.done and len(path) < depth:
                sum_of = sum(max(0.0, prior) for _, prior in found.actions)
                even = 1 / max(1, len(found.actions))
                leaf.children = [
                    Node(prior=max(0.0, prior) / sum_of if sum_of else even) for _, prior in found.actions
                ]
        for node in way:
            node.visits += 1
            node.total += leaf.expansion.value
    return Searched(root=root, simulations=simulations, wanted=None)


def _down(root: Node, exploration: float) -> tuple[Path, list[Node]]:
    path: list[int] = []
    way = [root]
    while way[-1].children:
        node = way[-1]
        reach = exploration * math.sqrt(node.visits)

        def worth(place: int, node: Node = node, reach: float = reach) -> tuple[float, int]:
            child = node.children[place]
            # A node that was not looked at is taken to be as good as its parent.
            mean = child.mean if child.visits else node.mean
            return mean + reach * child.prior / (1 + child.visits), -place

        path.append(max(range(len(node.children)), key=worth))
        way.append(node.children[path[-1]])
    return tuple(path), way


def _best(node: Node) -> Iterator[int]:
    while any(child.visits for child in node.children):
        children = node.children
        place = max(range(len(children)), key=lambda n: (children[n].visits, children[n].mean, -n))
        yield place
        node = children[place]
