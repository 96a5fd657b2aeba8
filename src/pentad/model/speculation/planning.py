"""The best tree for every size and depth, from how often the child of each rank is accepted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pentad.model.speculation.base import Shape

Float64 = npt.NDArray[np.float64]


class TreeTable:
    """Dynamic program over trees in which a node's chance is the product of the rates on its path.

    With F(n, d) the most accepted tokens that n nodes in at most d levels can yield behind a node
    that was reached, and C(r, n, d) the same with children of rank r and higher only:

        F(n, d) = C(0, n, d)
        C(r, n, d) = max over m of  rate[r] * (1 + F(m - 1, d - 1)) + C(r + 1, n - m, d),  or 0

    Cost: ranks * depth * nodes^2 operations.

    Args:
        rates: by rank among siblings, the chance that this child of a reached node is accepted.
        nodes: of the largest tree.
        depth: levels of the deepest.

    Source: Sequoia (Chen et al. 2024), section 3.1 and appendix; there for unbounded depth first.
    """

    def __init__(self, rates: Sequence[float], nodes: int, depth: int) -> None:
        self._ranks = len(rates)
        self._values = np.zeros((depth + 1, nodes + 1))
        self._picks = np.zeros((depth + 1, self._ranks + 1, nodes + 1), dtype=np.int64)
        sizes = np.arange(nodes + 1)
        rest = sizes[:, None] - sizes  # [n, m] nodes left when the child takes m
        for d in range(1, depth + 1):
            child = np.concatenate(([0.0], 1.0 + self._values[d - 1, :-1]))  # [m]
            best = np.zeros(nodes + 1)
            for rank in reversed(range(self._ranks)):
                values = np.where(rest >= 0, rates[rank] * child + best[rest], -np.inf)
                values[:, 0] = 0.0  # no child of this rank, so none of a higher one
                self._picks[d, rank] = values.argmax(axis=1)
                best = values.max(axis=1)
            self._values[d] = best

    def gain(self, nodes: int, depth: int) -> float:
        """Accepted tokens that the best tree of that size and depth yields on average."""
        return float(self._values[depth, nodes])

    def shape(self, nodes: int, depth: int) -> Shape:
        """The best tree, level by level; it may need fewer nodes."""
        parents: list[int] = []
        level = [(-1, nodes)]
        for d in range(depth, 0, -1):
            below: list[tuple[int, int]] = []
            for parent, left in level:
                rank = 0
                while rank < self._ranks and (taken := int(self._picks[d, rank, left])):
                    below.append((len(parents), taken - 1))
                    parents.append(parent)
                    left -= taken
                    rank += 1
            level = below
        return tuple(parents)
