"""ArbitrarySpeculator: any valid tree of any tokens, right or wrong, to find what verification overlooks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.speculation.base import Ask, DraftPlan, Rates, Verdict
from pentad.execution.speculation.tree import TokenTree
from pentad.execution.speculation.verify import verify

Oracle = Callable[[str, Sequence[int]], int]
"""The right token of a sequence, by its id, behind a text."""


class ArbitrarySpeculator:
    """Drafts random trees, in which some tokens are what an oracle says and the others are garbage.

    Args:
        seed: of the choices; the same seed and history give the same trees.
        vocab_size: tokens to choose from.
        oracle: knows what comes next; None makes all tokens garbage.
        hit_probability: chance that a node holds the oracle's token.
        chains: whether trees never branch.
    """

    name = "arbitrary"
    lossless = True

    def __init__(
        self,
        seed: int,
        vocab_size: int,
        *,
        oracle: Oracle | None = None,
        hit_probability: float = 0.7,
        chains: bool = False,
    ) -> None:
        self._random = random.Random(seed)
        self._vocab_size = vocab_size
        self._oracle = oracle
        self._hit_probability = hit_probability
        self._chains = chains
        self.forgotten: list[str] = []
        self.closed = False

    def options(self, rates: Rates, most_tokens: int) -> Sequence[DraftPlan]:  # noqa: ARG002
        """One of every size."""
        return [DraftPlan(tokens=size, depth=size, gain=size) for size in range(1, most_tokens + 1)]

    def draft(self, asks: Sequence[Ask]) -> list[TokenTree | None]:
        """Some valid tree, or none."""
        return [self._tree(ask) for ask in asks]

    def _tree(self, ask: Ask) -> TokenTree | None:
        size = self._random.randint(0, ask.plan.tokens)
        tokens: list[int] = []
        parents: list[int] = []
        paths: list[tuple[int, ...]] = []
        for node in range(size):
            parent = node - 1 if self._chains else self._random.randint(-1, node - 1)
            path = paths[parent] if parent >= 0 else ()
            tokens.append(self._token(ask.id, [*ask.tokens, *path]))
            parents.append(parent)
            paths.append((*path, tokens[-1]))
        return TokenTree(tokens=tuple(tokens), parents=tuple(parents)) if size else None

    def _token(self, id: str, text: Sequence[int]) -> int:
        if self._oracle is not None and self._random.random() < self._hit_probability:
            return self._oracle(id, text)
        return self._random.randrange(self._vocab_size)

    def verify(self, tree: TokenTree, rows: Sequence[SampleRow], drawn: Sequence[Drawn]) -> Verdict:
        """As real strategies do."""
        return verify(tree, rows, drawn)

    def forget(self, id: str) -> None:
        self.forgotten.append(id)

    def close(self) -> None:
        self.closed = True
