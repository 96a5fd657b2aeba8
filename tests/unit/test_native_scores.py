"""Attention scores per cache slot: how they add up, and what they do not depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from native_support import HERE, random_weights, tiny_spec
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec import ModelSpec, Rope
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

SPEC = tiny_spec(
    vocab_size=131, width=96, heads=6, kv_heads=2, head_dim=32, ffn_width=160, context_length=512
)
SPEC = SPEC.with_attention(positions=Rope(dim=32), qkv_bias=True)
WEIGHTS = random_weights(SPEC, "Q8_0")
GROUP = 3
"""Query heads of a key/value head."""
TEXT = np.random.default_rng(9).integers(0, SPEC.vocab_size, 300).tolist()
BLOCKS = [11, 3, 4, 0, 7, 9, 1, 25, 26, 27, 28, 29, 30, 31, 2, 5, 6, 8, 10]
ROUNDING = 5e-3
"""Of weights in bfloat16."""


def load(kernels: str, spec: ModelSpec = SPEC, **options: Any) -> NativeRunner:
    settings = {"num_blocks": 40, "threads": 1, "kernels": kernels, "attention_scores": True}
    return NativeRunner.load(spec, WEIGHTS, **(settings | options))


def scores(runner: NativeRunner, blocks: Sequence[int], slots: int) -> np.ndarray:
    """Of the first slots of a text, [layers, kv_heads, slots]."""
    return np.concatenate([runner.attention_scores(block) for block in blocks], axis=-1)[:, :, :slots]


def compute(runner: NativeRunner, text: Sequence[int], sizes: Sequence[int], blocks: Sequence[int]) -> None:
    """The text in chunks whose sizes are taken in turn."""
    at = chunk = 0
    while at < len(text):
        size = sizes[chunk % len(sizes)]
        runner.logits(ragged([(text[at : at + size], at, blocks)], rows=[]))
        at, chunk = at + size, chunk + 1


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("sizes", [(300,), (1,), (37, 4, 1, 20)], ids=["whole", "one by one", "mixed"])
@pytest.mark.parametrize("name", HERE)
def test_every_query_gives_one_in_all(name: str, sizes: tuple[int, ...], kv_dtype: str) -> None:
    runner = load(name, kv_dtype=kv_dtype)
    compute(runner, TEXT, sizes, BLOCKS)
    found = scores(runner, BLOCKS, len(TEXT))
    assert found.sum(axis=-1) == pytest.approx(len(TEXT) * GROUP, rel=ROUNDING)
    # The last slot is seen by one query of each head, the first by all.
    assert (found[:, :, -1] <= GROUP * (1 + ROUNDING)).all()
    assert (found > 0).all()
    runner.close()


@pytest.mark.parametrize("name", HERE)
def test_the_first_layer_s_are_softmax_weights(name: str) -> None:
    """Two tokens: what the second gives to the first follows from the scores of the first alone."""
    runner = load(name)
    runner.logits(ragged([(TEXT[:2], 0, BLOCKS)], rows=[]))
    first, second = scores(runner, BLOCKS, 2).transpose(2, 0, 1)
    assert first + second == pytest.approx(2 * GROUP, rel=ROUNDING)
    assert (first >= GROUP * (1 - ROUNDING)).all()
    assert (second <= GROUP * (1 + ROUNDING)).all()
    runner.close()


@pytest.mark.parametrize("name", HERE)
def test_chunks_differ_by_rounding_and_threads_by_nothing(name: str) -> None:
    ways = {}
    for way, threads, sizes in (
        ("whole", 1, (300,)),
        ("cut", 1, (50,)),
        ("two", 2, (50,)),
        ("three", 3, (50,)),
    ):
        runner = load(name, threads=threads)
        compute(runner, TEXT, sizes, BLOCKS)
        ways[way] = scores(runner, BLOCKS, len(TEXT))
        runner.close()
    np.testing.assert_allclose(ways["cut"], ways["whole"], rtol=0.05, atol=0.02)
    np.testing.assert_array_equal(ways["two"], ways["cut"])
    np.testing.assert_array_equal(ways["three"], ways["cut"])


@pytest.mark.parametrize("name", HERE)
def test_a_window_gives_nothing_to_slots_outside(name: str) -> None:
    runner = load(name, SPEC.with_attention(window=20))
    compute(runner, TEXT[:40], (40,), BLOCKS)
    before = scores(runner, BLOCKS, 40)
    runner.logits(ragged([(TEXT[40:41], 40, BLOCKS)], rows=[]))
    after = scores(runner, BLOCKS, 41)
    given = after[:, :, :40] - before
    assert (given[:, :, :21] == 0).all()
    assert given.sum(axis=-1) + after[:, :, 40] == pytest.approx(GROUP, rel=ROUNDING)
    runner.close()


@pytest.mark.parametrize("name", HERE)
def test_sequences_that_share_blocks_add_to_the_same_slots(name: str) -> None:
    runner = load(name, threads=2)
    compute(runner, TEXT[:32], (32,), BLOCKS)
    before = scores(runner, BLOCKS, 32)
    tables = [[*BLOCKS[:2], 20 + i] for i in range(4)]
    runner.logits(ragged([([7], 32, table) for table in tables], rows=[]))
    given = scores(runner, BLOCKS, 32) - before
    own = np.array([scores(runner, table, 33)[:, :, 32] for table in tables])
    assert given.sum(axis=-1) + own.sum(axis=0) == pytest.approx(4 * GROUP, rel=ROUNDING)
    np.testing.assert_allclose(own, np.broadcast_to(own[0], own.shape))
    runner.close()


def test_writing_a_slot_begins_its_count_anew_and_copies_take_it_along() -> None:
    runner = load(HERE[0])
    compute(runner, TEXT[:32], (32,), BLOCKS)
    runner.copy_block(BLOCKS[0], 33)
    np.testing.assert_array_equal(runner.attention_scores(33), runner.attention_scores(BLOCKS[0]))
    runner.copy_slots([(33 * 16 + 5, 34 * 16 + 2)])
    assert (runner.attention_scores(34)[:, :, 2] == runner.attention_scores(33)[:, :, 5]).all()
    runner.logits(ragged([(TEXT[:1], 0, BLOCKS)], rows=[]))
    assert runner.attention_scores(BLOCKS[0])[:, :, 0] == pytest.approx(GROUP, rel=ROUNDING)
    runner.close()


def test_drafts_see_but_do_not_count() -> None:
    runner = load(HERE[0])
    compute(runner, TEXT[:32], (32,), BLOCKS)
    before = scores(runner, BLOCKS, 32)
    batch = ragged([(TEXT[32:36], 32, BLOCKS)], rows=[])
    runner.logits(dataclasses.replace(batch, drafted=np.array([3], np.int32)))
    after = scores(runner, BLOCKS, 36)
    given = after[:, :, :32] - before
    assert given.sum(axis=-1) + after[:, :, 32] == pytest.approx(GROUP, rel=ROUNDING)
    assert (after[:, :, 33:] == 0).all()
    runner.close()


def test_counting_changes_no_logit_and_takes_its_bytes_from_the_budget() -> None:
    for name in HERE:
        runners = [load(name, attention_scores=counted) for counted in (False, True)]
        plain, counted = (runner.logits(ragged([(TEXT[:40], 0, BLOCKS)])) for runner in runners)
        np.testing.assert_array_equal(counted, plain)
        more = runners[1].block_bytes - runners[0].block_bytes
        assert more == SPEC.layers * SPEC.kv_heads * 16 * 8
        budget = 7 * runners[1].block_bytes
        sized = load(name, num_blocks=None, kv_bytes=budget)
        assert sized.num_blocks == 7
        for runner in (*runners, sized):
            runner.close()


def test_without_them_asking_is_an_error_that_names_the_remedy() -> None:
    runner = load(HERE[0], attention_scores=False)
    with pytest.raises(ValueError, match="no attention scores are kept; load with attention_scores=True"):
        runner.attention_scores(0)
    runner.close()
    runner = load(HERE[0])
    for block in (-1, 40):
        with pytest.raises(ValueError, match=f"block {block}"):
            runner.attention_scores(block)
    runner.close()
