"""Trees of drafted tokens on the native kernels: bit for bit what each branch is as plain text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from native_support import HERE, random_weights, tiny_spec
from pentad.execution.batch import RaggedBatch, SampleRow
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec import ModelSpec, Rope
from pentad.execution.speculation.tree import TokenTree, chain
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

SPEC = tiny_spec(
    vocab_size=131, width=96, heads=6, kv_heads=2, head_dim=32, ffn_width=160, context_length=256
)
SPEC = SPEC.with_attention(positions=Rope(dim=32), qkv_bias=True)
SPECS = {
    "grouped": SPEC,
    "window narrower than the tree": SPEC.with_attention(window=5),
    "one key/value head": SPEC.with_attention(kv_heads=1),
}
TREE = TokenTree(tokens=(5, 6, 7, 8, 9, 10, 11), parents=(-1, 0, -1, 0, 2, 3, 5))
FAN = TokenTree(tokens=tuple(range(20, 84)), parents=(*(-1,) * 3, *range(61)))
"""64 nodes, 22 levels: the largest tree there may be."""
CHAIN = chain(range(40, 60))
TEXT = np.random.default_rng(9).integers(0, SPEC.vocab_size, 120).tolist()
BLOCKS = [11, 3, 4, 0, 7, 9, 1, 25, 26, 27, 28, 29]
OTHERS = [20, 21, 22, 23, 19, 18, 17, 15, 14, 13, 12, 10]


@pytest.fixture(params=[(spec, kernels) for kernels in HERE for spec in SPECS], ids=" on ".join)
def runner(request: pytest.FixtureRequest) -> Iterator[NativeRunner]:
    spec, kernels = request.param
    runner = load(SPECS[spec], kernels)
    yield runner
    runner.close()


def load(spec: ModelSpec, kernels: str, threads: int = 2) -> NativeRunner:
    weights = random_weights(spec, "Q8_0")
    return NativeRunner.load(spec, weights, num_blocks=32, threads=threads, kernels=kernels)


def drafting(batch: RaggedBatch, trees: dict[int, tuple[TokenTree, Sequence[int]]]) -> RaggedBatch:
    """Marks the last tokens of sequences as those nodes of a tree; earlier nodes are in the cache."""
    slots = np.zeros(len(batch.context_lens), np.int32)
    drafted = np.zeros(len(batch.context_lens), np.int32)
    masks = np.zeros(len(batch.token_ids), np.uint64)
    positions = batch.positions.copy()
    for s, (tree, nodes) in trees.items():
        end = int(batch.starts[s + 1])
        slots[s], drafted[s] = nodes[-1] + 1, len(nodes)
        text = int(batch.context_lens[s]) - int(slots[s])
        masks[end - len(nodes) : end] = [tree.masks()[node] for node in nodes]
        positions[end - len(nodes) : end] = [text - 1 + tree.depths[node] for node in nodes]
    return dataclasses.replace(
        batch, positions=positions, drafted=drafted, tree_slots=slots, tree_masks=masks
    )


def plain(runner: NativeRunner, text: Sequence[int], path: Sequence[int]) -> list[Any]:
    """Logits behind the text and behind each token of the path, computed one by one."""
    runner.logits(ragged([(text[:-1], 0, OTHERS)]))
    tokens = [text[-1], *path]
    return [
        runner.logits(ragged([([token], len(text) - 1 + i, OTHERS)]))[0] for i, token in enumerate(tokens)
    ]


@pytest.mark.row("sd-specinfer", "mechanism")
@pytest.mark.parametrize("tree", [TREE, FAN, CHAIN], ids=["small", "fan", "chain"])
@pytest.mark.parametrize("length", [2, 16, 47, 90])
def test_every_branch_has_the_very_logits_that_plain_decoding_gives_it(
    runner: NativeRunner, tree: TokenTree, length: int
) -> None:
    text = TEXT[:length]
    runner.logits(ragged([(text[:-1], 0, BLOCKS)]))
    batch = ragged([([text[-1], *tree.tokens], length - 1, BLOCKS)])
    got = runner.logits(drafting(batch, {0: (tree, range(len(tree)))}))
    leaves = [node for node in range(len(tree)) if not tree.children[node + 1]]
    for leaf in leaves[-3:]:
        nodes = [leaf]
        while tree.parents[nodes[-1]] >= 0:
            nodes.append(tree.parents[nodes[-1]])
        nodes.reverse()
        expected = plain(runner, text, [tree.tokens[node] for node in nodes])
        np.testing.assert_array_equal(got[[0, *(node + 1 for node in nodes)]], expected)


def test_trees_beside_plain_sequences_disturb_nobody(runner: NativeRunner) -> None:
    text = TEXT[:30]
    expected = [
        *plain(runner, [9, 8, 7, 4], []),
        *plain(runner, text, [5, 6]),
        runner.logits(ragged([([7], 0, [8])]))[0],
    ]
    runner.logits(ragged([(text[:29], 0, BLOCKS)]))
    runner.logits(ragged([([9, 8, 7], 0, [16])]))
    batch = ragged([([4], 3, [16]), ([text[29], *TREE.tokens], 29, BLOCKS), ([7], 0, [8])])
    got = runner.logits(drafting(batch, {1: (TREE, range(7))}))
    np.testing.assert_array_equal(got[[0, 1, 2, 3, 9]], expected)


def test_a_tree_computed_level_by_level_is_the_tree_computed_at_once(runner: NativeRunner) -> None:
    text = TEXT[:45]
    runner.logits(ragged([(text, 0, BLOCKS)]))
    whole = ragged([(TREE.tokens, 45, BLOCKS)])
    expected = runner.logits(drafting(whole, {0: (TREE, range(7))}))
    got = []
    for nodes in ([0], [1, 2], [3], [4, 5], [6]):
        part = ragged([([TREE.tokens[node] for node in nodes], 45 + nodes[0], BLOCKS)])
        got += list(runner.logits(drafting(part, {0: (TREE, nodes)})))
    np.testing.assert_array_equal(got, expected)


def test_an_accepted_branch_is_text_once_its_slots_are_copied(runner: NativeRunner) -> None:
    text, path = TEXT[:30], [0, 3, 5]
    expected = plain(runner, text, [*(TREE.tokens[node] for node in path), 50])[-1]
    runner.logits(ragged([(text[:29], 0, BLOCKS)]))
    tree = ragged([([text[29], *TREE.tokens], 29, BLOCKS)])
    runner.logits(drafting(tree, {0: (TREE, range(7))}))
    places = [BLOCKS[i // 16] * 16 + i % 16 for i in range(30, 40)]
    runner.copy_slots([(places[node], places[i]) for i, node in enumerate(path) if node != i])
    np.testing.assert_array_equal(runner.logits(ragged([([50], 33, BLOCKS)]))[0], expected)


def test_raw_rows_get_the_logits_and_the_others_their_draws(runner: NativeRunner) -> None:
    batch = ragged([(TEXT[:20], 0, BLOCKS)], rows=[3, 4, 5, 6])
    expected = runner.logits(batch)
    greedy, raw = SampleRow(temperature=0), SampleRow(raw=True, seed=3)
    kept = runner.step(batch, [greedy, raw, SampleRow(temperature=0, logprobs=2), raw])
    assert [drawn.token for drawn in kept] == [expected[0].argmax(), -1, expected[2].argmax(), -1]
    runner.step(batch, [raw] * 4)  # what was handed out is not written again
    for i in (1, 3):
        assert kept[i].logits is not None
        np.testing.assert_array_equal(kept[i].logits, expected[i])
    assert kept[0].logits is None


@pytest.mark.parametrize(
    "changes",
    [
        {"tree_slots": np.array([65], np.int32)},
        {"tree_slots": np.array([-1], np.int32)},
        {"tree_slots": np.array([6], np.int32)},
        {"tree_masks": np.array([0, *[1 << 40] * 7], np.uint64)},
        {"tree_masks": np.array([0, 2, *TREE.masks()[1:]], np.uint64)},
        {"drafted": np.array([9], np.int32)},
        {"drafted": np.array([-1], np.int32)},
    ],
)
def test_an_impossible_tree_is_refused(changes: dict[str, Any]) -> None:
    runner = load(SPEC, HERE[0])
    batch = drafting(ragged([([1, *TREE.tokens], 0, BLOCKS)]), {0: (TREE, range(7))})
    runner.logits(batch)
    with pytest.raises(ValueError, match="impossible tree"):
        runner.logits(dataclasses.replace(batch, **changes))
    with pytest.raises(ValueError, match="not all of 32 blocks"):
        runner.copy_slots([(0, 32 * 16)])
