"""Verification: which drafted tokens stay, so that the result is as if none had been drafted.

Where tokens were chosen (n-grams, the k most probable), the token that the target draws at a node
decides: a child with that token is accepted. That draw is the one that would have been made without
speculation, from the same random number, so even sampled text is token for token the same.

Where tokens were drawn from a draft distribution q, they are accepted with probability min(1, p/q),
and what p has beyond q is drawn from when none is: equally distributed, though not the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.sampling import distribution, pick, reported, uniform
from pentad.execution.speculation.base import Verdict
from pentad.execution.speculation.tree import Distribution, TokenTree

_RESIDUAL = 1
_FIRST_NODE = 2
"""Streams of random numbers: 0 draws tokens; every node of a tree has one to draft and one to judge it."""


def verify(tree: TokenTree, rows: Sequence[SampleRow], drawn: Sequence[Drawn]) -> Verdict:
    """The accepted path and the token behind it, for trees of either kind.

    Args:
        tree: what was drafted.
        rows: how the target draws behind the sequence's last token, then behind each node.
        drawn: its draws; raw logits at nodes whose children were drawn from a distribution.

    Source: one child is Leviathan et al. 2023 (algorithm 1), several are multi-step speculative
    sampling of SpecInfer (Miao et al. 2024, algorithm 2), without replacement as in Sequoia
    (Chen et al. 2024, algorithm 2).
    """
    path: list[int] = []
    taken: list[Drawn] = []
    node = -1
    while True:
        accepted, token = _step(tree, node, rows[node + 1], drawn[node + 1])
        taken.append(token)
        if accepted is None:
            return Verdict(path=tuple(path), drawn=tuple(taken))
        path.append(accepted)
        node = accepted


def _step(tree: TokenTree, node: int, row: SampleRow, drawn: Drawn) -> tuple[int | None, Drawn]:
    """The child of `node` that stays, if any, and the token drawn behind `node`."""
    children = tree.children[node + 1]
    if drawn.logits is None:
        same = (child for child in children if tree.tokens[child] == drawn.token)
        return next(same, None), drawn
    p = distribution(drawn.logits, row)
    tried: list[int] = []
    for child in children:
        token = tree.tokens[child]
        q = tree.proposals[child] if tree.replacement else without(tree.proposals[child], tried)
        u = uniform(row.seed, row.choice, row.position, judging(child))
        if u * q[token] < p[token]:
            return child, reported(drawn.logits, token, row)
        p = residual(p, q)
        tried.append(token)
    u = uniform(row.seed, row.choice, row.position, _RESIDUAL)
    return None, reported(drawn.logits, pick(p, u), row)


def drafting(node: int) -> int:
    """The stream from which node number `node` is drawn."""
    return _FIRST_NODE + 2 * node


def judging(node: int) -> int:
    """The stream that decides about node number `node`."""
    return _FIRST_NODE + 2 * node + 1


def residual(p: Distribution, q: Distribution) -> Distribution:
    """What is left to draw from when a token of q was rejected: max(p - q, 0), normalised."""
    rest = np.maximum(p - q, 0.0)
    mass = rest.sum()
    # Equal distributions reject nothing; rounding may leave no mass, and then p is as good as exact.
    return rest / mass if mass > 0 else p


def without(q: Distribution, tokens: Sequence[int]) -> Distribution:
    """q without these tokens, normalised."""
    if not tokens:
        return q
    rest = q.copy()
    rest[list(tokens)] = 0.0
    mass = rest.sum()
    return rest / mass if mass > 0 else rest
