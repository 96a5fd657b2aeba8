"""TokenTree: what is drafted behind a sequence's last token. A chain is a tree without branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAX_NODES = 64
"""What a mask of 64 bits can address."""

Distribution = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTree:
    """Drafted tokens; node 0 to n - 1, every parent in front of its children.

    Any beginning of a tree is a tree: whoever has less room cuts it. Where tokens were sampled,
    a node's number and parent must not depend on tokens sampled at or behind its own depth, or
    cutting would prefer some tokens to others and verification would no longer be lossless.

        last token --- 0 --- 1 --- 2          parents  (-1, 0, 1, -1, 3)
                   \\-- 3 --- 4                depths   ( 1, 2, 3,  1, 2)

    Raises ValueError when a parent does not come first or there are more than 64 nodes.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    """Node that each stands behind; -1 for the sequence's last token."""
    proposals: tuple[Distribution, ...] = ()
    """[V] what each token was drawn from; empty where tokens were chosen and not drawn."""
    replacement: bool = True
    """Whether siblings were drawn independently; otherwise each without those before it."""
    depths: tuple[int, ...] = field(init=False, compare=False)
    """Tokens between the sequence's last token and each node, the node included."""
    children: tuple[tuple[int, ...], ...] = field(init=False, compare=False)
    """By node + 1, the sequence's last token first: the nodes behind it, in the order they are tried."""

    def __post_init__(self) -> None:
        depths: list[int] = []
        children: list[list[int]] = [[] for _ in range(len(self.tokens) + 1)]
        if len(self.tokens) != len(self.parents) or len(self.tokens) > MAX_NODES:
            raise ValueError(f"a tree of {len(self.tokens)} tokens and {len(self.parents)} parents")
        if self.proposals and len(self.proposals) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens were drawn from {len(self.proposals)} distributions")
        for node, parent in enumerate(self.parents):
            if not -1 <= parent < node:
                raise ValueError(f"node {node} stands behind node {parent}")
            depths.append(1 if parent < 0 else depths[parent] + 1)
            children[parent + 1].append(node)
        object.__setattr__(self, "depths", tuple(depths))
        object.__setattr__(self, "children", tuple(map(tuple, children)))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        """Whether every node stands behind the one before it."""
        return self.depths == tuple(range(1, len(self.tokens) + 1))

    def cut(self, size: int) -> TokenTree:
        """The first `size` nodes."""
        if size >= len(self.tokens):
            return self
        return TokenTree(
            tokens=self.tokens[:size],
            parents=self.parents[:size],
            proposals=self.proposals[:size],
            replacement=self.replacement,
        )

    def only(self, keep: Sequence[int]) -> TokenTree:
        """The nodes listed in ascending order; each brings its parent along in the list."""
        number = {-1: -1} | {node: i for i, node in enumerate(keep)}
        return TokenTree(
            tokens=tuple(self.tokens[node] for node in keep),
            parents=tuple(number[self.parents[node]] for node in keep),
            proposals=tuple(self.proposals[node] for node in keep) if self.proposals else (),
            replacement=self.replacement,
        )

    def path(self, node: int) -> tuple[int, ...]:
        """The tokens from the sequence's last one, exclusive, to the node."""
        tokens: list[int] = []
        while node >= 0:
            tokens.append(self.tokens[node])
            node = self.parents[node]
        return tuple(reversed(tokens))

    def masks(self) -> list[int]:
        """By node: bit j set for node j being itself or in front of it."""
        masks: list[int] = []
        for node, parent in enumerate(self.parents):
            masks.append((masks[parent] if parent >= 0 else 0) | 1 << node)
        return masks


def chain(tokens: Sequence[int], proposals: Sequence[Distribution] = ()) -> TokenTree:
    """Tokens one behind the other."""
    return TokenTree(
        tokens=tuple(tokens),
        parents=tuple(range(-1, len(tokens) - 1)),
        proposals=tuple(proposals),
    )
