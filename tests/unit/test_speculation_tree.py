"""Trees of drafted tokens: what they allow, and what a batch says about them."""

from __future__ import annotations

import numpy as np
import pytest

from pentad.execution.batch import RaggedBatch
from pentad.execution.speculation.base import DraftPlan
from pentad.execution.speculation.tree import MAX_NODES, TokenTree, chain
from pentad.execution.speculation.verify import verify
from pentad.testing.engines import run, token_request
from pentad.testing.runners import ToyRunner
from speculation_support import speculating

FORKED = TokenTree(tokens=(5, 6, 7, 8, 9), parents=(-1, 0, -1, 0, 2))


def test_depths_children_and_masks_follow_from_the_parents() -> None:
    assert FORKED.depths == (1, 2, 1, 2, 2)
    assert FORKED.children == ((0, 2), (1, 3), (), (4,), (), ())
    assert FORKED.masks() == [0b1, 0b11, 0b100, 0b1001, 0b10100]
    assert FORKED.path(3) == (5, 8)
    assert FORKED.path(-1) == ()
    assert not FORKED.is_chain
    assert chain((1, 2, 3)).is_chain
    assert chain((1, 2, 3)).depths == (1, 2, 3)


def test_a_cut_tree_is_its_beginning() -> None:
    assert FORKED.cut(2) == TokenTree(tokens=(5, 6), parents=(-1, 0))
    assert FORKED.cut(9) is FORKED
    assert FORKED.only([0, 2, 4]) == TokenTree(tokens=(5, 7, 9), parents=(-1, -1, 1))


def test_what_is_drawn_keeps_its_distribution_when_cut() -> None:
    q = [np.full(4, 0.25), np.array([1.0, 0, 0, 0])]
    tree = TokenTree(tokens=(1, 0), parents=(-1, 0), proposals=tuple(q), replacement=False)
    assert tree.cut(1).proposals[0] is q[0]
    assert not tree.cut(1).replacement


@pytest.mark.parametrize(
    ("tokens", "parents", "proposals"),
    [
        ((1,), (0,), ()),
        ((1, 2), (-1, 1), ()),
        ((1, 2), (-1,), ()),
        (range(MAX_NODES + 1), range(-1, MAX_NODES), ()),
        ((1, 2), (-1, 0), (np.ones(3),)),
    ],
)
def test_impossible_trees_are_refused(tokens, parents, proposals) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"node|tree|drawn"):
        TokenTree(tokens=tuple(tokens), parents=tuple(parents), proposals=tuple(proposals))


class Fixed:
    """Drafts the same tree once."""

    name = "fixed"
    lossless = True

    def __init__(self, *trees: TokenTree | None) -> None:
        self.trees = list(trees)

    def options(self, rates, most_tokens):  # type: ignore[no-untyped-def]
        return [DraftPlan(tokens=most_tokens, depth=most_tokens, gain=1.0)]

    def draft(self, asks):  # type: ignore[no-untyped-def]
        return [self.trees.pop(0) if self.trees else None for _ in asks]

    def verify(self, tree, rows, drawn):  # type: ignore[no-untyped-def]
        return verify(tree, rows, drawn)

    def forget(self, id: str) -> None:
        pass

    def close(self) -> None:
        pass


def batches(*trees: TokenTree | None) -> list[RaggedBatch]:
    """The steps of an engine that drafts these trees behind a prompt of 6 tokens."""
    seen: list[RaggedBatch] = []
    engine = speculating(Fixed(*trees), runner=ToyRunner(block_size=4, before_step=seen.append))
    run(engine, token_request("a", range(6), 24))
    return seen


def test_a_tree_stands_behind_the_last_token_and_is_marked_in_the_batch() -> None:
    batch = batches(FORKED)[1]
    assert batch.token_ids[1:].tolist() == [5, 6, 7, 8, 9]
    assert batch.positions.tolist() == [6, 7, 8, 7, 8, 8]
    slots = [int(batch.block_tables[0, i // 4]) * 4 + i % 4 for i in range(6, 12)]
    assert batch.slots.tolist() == slots  # one after the other, whatever the positions
    assert batch.context_lens.tolist() == [12]
    assert batch.logit_rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.tree_slots is not None
    assert batch.tree_masks is not None
    assert batch.tree_slots.tolist() == [5]
    assert batch.tree_masks.tolist() == [0, 0b1, 0b11, 0b100, 0b1001, 0b10100]


def test_a_chain_is_a_chunk_like_any_other() -> None:
    batch = batches(chain((5, 6, 7)))[1]
    assert batch.positions.tolist() == [6, 7, 8, 9]
    assert batch.logit_rows.tolist() == [0, 1, 2, 3]
    assert batch.tree_slots is None
    assert batch.tree_masks is None
