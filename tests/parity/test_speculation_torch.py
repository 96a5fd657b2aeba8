"""Trees of tokens on the PyTorch kernels, against plain decoding of each branch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from pentad.execution.batch import RaggedBatch
from pentad.execution.spec import Learned
from pentad.execution.speculation.tree import TokenTree
from pentad.execution.torch.runner import TorchRunner
from ragged_batches import ragged
from torch_reference import TINY, ArrayWeights, tiny_arrays, windowed

SPECS = {
    "rope": TINY,
    "learned": dataclasses.replace(
        TINY, stack=dataclasses.replace(TINY.stack, positions=Learned(max_positions=256))
    ).with_attention(positions=None),
    "window": TINY.with_attention(window=70),
    "windows": windowed(TINY, 64, 1),
    "mqa": TINY.with_attention(kv_heads=1),
}
TREE = TokenTree(tokens=(5, 6, 7, 8, 9, 10, 11), parents=(-1, 0, -1, 0, 2, 3, 5))
TEXT = np.random.default_rng(9).integers(0, TINY.vocab_size, 90).tolist()
BLOCKS = [11, 3, 4, 0, 7, 9, 1]


@pytest.fixture(params=SPECS)
def runner(request: pytest.FixtureRequest) -> Iterator[TorchRunner]:
    spec = SPECS[request.param]
    runner = TorchRunner.load(spec, ArrayWeights(tiny_arrays(spec)), num_blocks=24, dtype="float32")
    yield runner
    runner.close()


def with_tree(batch: RaggedBatch, sequence: int, first: int, nodes: list[int]) -> RaggedBatch:
    """Marks the last tokens of a sequence as these nodes of the tree, whose first slot is `first`."""
    stop = int(batch.starts[sequence + 1])
    positions, masks = batch.positions.copy(), np.zeros(len(batch.token_ids), np.uint64)
    slots = np.zeros(len(batch.context_lens), np.int32)
    positions[stop - len(nodes) : stop] = [first - 1 + TREE.depths[node] for node in nodes]
    masks[stop - len(nodes) : stop] = [TREE.masks()[node] for node in nodes]
    slots[sequence] = int(batch.context_lens[sequence]) - first
    return dataclasses.replace(batch, positions=positions, tree_slots=slots, tree_masks=masks)


@pytest.mark.row("sd-specinfer", "mechanism")
@pytest.mark.parametrize("length", [1, 20, 90])
@pytest.mark.parametrize("cached", [0, 1])
def test_each_branch_has_the_logits_that_it_has_alone(runner: TorchRunner, length: int, cached: int) -> None:
    text = TEXT[:length]
    expected = []
    for node in range(len(TREE)):
        path = [*text, *TREE.path(node)]
        expected.append(
            runner.logits(ragged([(path, 0, [20, 21, 22, 23, 19, 18, 17])], rows=[len(path) - 1]))[0]
        )
    done = (length - 1) * cached
    if done:
        runner.logits(ragged([(text[:done], 0, BLOCKS)]))
    other = ([3, 4, 5], 0, [16])
    parts = [other, ([*text[done:], *TREE.tokens], done, BLOCKS), ([7], 0, [15])]
    batch = with_tree(ragged(parts), 1, length, list(range(len(TREE))))
    got = runner.logits(batch)
    np.testing.assert_allclose(got[-1 - len(TREE) : -1], expected, atol=2e-4, rtol=1e-3)
    np.testing.assert_allclose(got[:3], runner.logits(ragged([other])), atol=2e-4, rtol=1e-3)


def test_a_tree_may_be_computed_level_by_level(runner: TorchRunner) -> None:
    whole = with_tree(ragged([([*TEXT, *TREE.tokens], 0, BLOCKS)]), 0, len(TEXT), list(range(len(TREE))))
    expected = runner.logits(whole)[-len(TREE) :]
    runner.logits(ragged([(TEXT, 0, BLOCKS)]))
    got = []
    for nodes in ([0], [1, 2], [3], [4, 5], [6]):
        part = ragged([([TREE.tokens[node] for node in nodes], len(TEXT) + nodes[0], BLOCKS)])
        got += list(runner.logits(with_tree(part, 0, len(TEXT), nodes)))
    np.testing.assert_allclose(got, expected, atol=2e-4, rtol=1e-3)


def test_an_accepted_branch_is_text_once_its_slots_are_copied(runner: TorchRunner) -> None:
    path = [0, 3, 5]
    text = [*TEXT, *(TREE.tokens[node] for node in path)]
    expected = runner.logits(ragged([([*text, 50], 0, [20, 21, 22, 23, 19, 18, 17])], rows=[len(text)]))
    runner.logits(
        with_tree(ragged([([*TEXT, *TREE.tokens], 0, BLOCKS)]), 0, len(TEXT), list(range(len(TREE))))
    )

    def slot(index: int) -> int:
        return BLOCKS[index // 16] * 16 + index % 16

    runner.copy_slots(
        [
            (slot(len(TEXT) + node), slot(len(TEXT) + place))
            for place, node in enumerate(path)
            if node != place
        ]
    )
    np.testing.assert_allclose(
        runner.logits(ragged([([50], len(text), BLOCKS)])), expected, atol=2e-4, rtol=1e-3
    )
