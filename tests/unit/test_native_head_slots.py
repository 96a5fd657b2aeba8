"""Native kernels with slots by head: the bits of ordinary blocks, and what every head sees and counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from head_slot_support import OneSequence, head_batch, random_keep
from native_support import HERE, random_weights, tiny_spec
from pentad.errors import Incompatible
from pentad.execution.batch import HeadSlots
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec import ModelSpec, Rope
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

SPEC = tiny_spec(
    vocab_size=131, width=96, heads=6, kv_heads=2, head_dim=32, ffn_width=160, context_length=512
)
SPEC = SPEC.with_attention(positions=Rope(dim=32))
BIASED = SPEC.with_attention(qkv_bias=True)
WEIGHTS = {SPEC: random_weights(SPEC, "Q8_0"), BIASED: random_weights(BIASED, "Q8_0")}
GROUP = 3
"""Query heads of a KV head."""
TEXT = np.random.default_rng(9).integers(0, SPEC.vocab_size, 180).tolist()
PROMPT = 150


def load(name: str, spec: ModelSpec = SPEC, **options: Any) -> NativeRunner:
    settings = {"num_blocks": 60, "threads": 1, "kernels": name, "key_centres": False}
    return NativeRunner.load(spec, WEIGHTS[spec], **(settings | options))


def everything(one: OneSequence) -> np.ndarray:
    return np.ones((one.heads, one.tables.positions.shape[1]), bool)


@pytest.mark.parametrize(("spec", "kv_dtype"), [(SPEC, "bfloat16"), (SPEC, "int8"), (BIASED, "bfloat16")])
@pytest.mark.parametrize("name", HERE)
def test_pages_anywhere_give_the_bits_of_ordinary_blocks(name: str, spec: ModelSpec, kv_dtype: str) -> None:
    runner = load(name, spec, kv_dtype=kv_dtype)
    one = OneSequence(runner, TEXT[:PROMPT])
    blocks = [*one.tables.blocks, 40, 41]
    expected = [
        runner.logits(ragged([(TEXT[at : at + 1], at, blocks)], rows=[0]))[0] for at in range(PROMPT, 180)
    ]
    again = OneSequence(runner, TEXT[:PROMPT])
    again.drop(everything(again), elsewhere=True)
    assert set(again.tables.blocks).isdisjoint(one.tables.blocks)
    for at in range(PROMPT, 180):
        np.testing.assert_array_equal(again.step(TEXT[at]), expected[at - PROMPT])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", HERE)
def test_company_and_threads_change_no_bit(name: str, threads: int) -> None:
    def cut(runner: NativeRunner) -> OneSequence:
        one = OneSequence(runner, TEXT[:PROMPT])
        one.drop(random_keep(SPEC, one.tables.positions.shape[1], seed=2))
        return one

    expected = cut(load(name)).step(TEXT[PROMPT])
    runner = load(name, threads=threads)
    one = cut(runner)
    one.tables.append(PROMPT, [50] * one.tables.missing_blocks())
    beside = ragged([(TEXT[:40], 0, [30, 31, 32]), (TEXT[60:61], 0, [33])], rows=[39, 40])
    alone = runner.logits(beside)
    found = runner.logits(head_batch(TEXT[PROMPT], PROMPT, one.tables, beside=beside))
    np.testing.assert_array_equal(found, [*alone, expected])


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", HERE)
def test_every_query_is_counted_once_in_what_its_heads_keep(name: str, kv_dtype: str) -> None:
    runner = load(name, kv_dtype=kv_dtype, attention_scores=True)
    one = OneSequence(runner, TEXT[:PROMPT])
    before = one.scores()
    assert [sum(scores.values()) for scores in before] == pytest.approx(
        [PROMPT * GROUP] * one.heads, rel=5e-3
    )
    one.drop(random_keep(SPEC, one.tables.positions.shape[1], seed=3), elsewhere=True)
    kept = one.scores()
    for head, scores in enumerate(kept):
        assert scores == {position: before[head][position] for position in scores}
    for at in range(PROMPT, 180):
        one.step(TEXT[at])
    for head, scores in enumerate(one.scores()):
        assert sum(scores.values()) - sum(kept[head].values()) == pytest.approx(30 * GROUP, rel=5e-3)
        assert all(scores[position] >= kept[head][position] for position in kept[head])


def test_what_was_never_a_number_is_not_read_behind_a_head() -> None:
    runner = load(HERE[0])
    one = OneSequence(runner, TEXT[:PROMPT])
    one.drop(random_keep(SPEC, one.tables.positions.shape[1], seed=5), elsewhere=True)
    assert np.isfinite(one.step(TEXT[PROMPT])).all()


def test_slots_by_head_are_refused_where_keys_lack_what_they_share() -> None:
    runner = load(HERE[0], BIASED, key_centres=True)
    one = OneSequence(runner, TEXT[:20])
    with pytest.raises(ValueError, match="impossible page of a head"):
        one.step(TEXT[20])
    with pytest.raises(Incompatible, match="set kv_dtype to auto, or --kv-policy keep-all"):
        load(HERE[0], BIASED, kv_dtype="int8")


def test_impossible_pages_and_entries_are_refused() -> None:
    runner = load(HERE[0])
    one = OneSequence(runner, TEXT[:20])
    one.tables.append(20, [])
    good = head_batch(TEXT[20], 20, one.tables)
    assert good.head_slots is not None
    pages, lens = good.head_slots.pages, good.head_slots.lens
    wrong = pages.copy()
    wrong[0, 3, 1] = 60 * 4
    longer = lens.copy()
    longer[0, 1] = 33
    for slots in (
        HeadSlots(pages=wrong, lens=lens),
        HeadSlots(pages=pages, lens=longer),
        HeadSlots(pages=pages, lens=lens * 0),
    ):
        with pytest.raises(ValueError, match="impossible page of a head"):
            runner.logits(dataclasses.replace(good, head_slots=slots))
    runner.logits(good)
    for entry in (-1, 60 * 4 * 16):
        with pytest.raises(ValueError, match="none of the cache's pages"):
            runner.move_entries(np.array([[0, entry]], np.int64))
    with pytest.raises(ValueError, match="load with attention_scores=True"):
        runner.page_scores(np.zeros(1, np.int32))
