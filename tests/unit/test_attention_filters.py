"""Attention filters: exact where they keep all, the same in every batch, and what each is about."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from native_support import random_weights, tiny_spec
from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.attention_filter import AttentionFilter, Look
from pentad.execution.spec import Rope
from pentad.execution.torch.runner import TorchRunner
from pentad.model.attention_filters.candidate_search import CandidateSearch
from pentad.model.attention_filters.cascade import Cascade
from pentad.model.attention_filters.key_channels import KeyChannels
from pentad.model.attention_filters.low_bit_mask import LowBitMask, packed_rows
from pentad.model.attention_filters.lsh_sampling import LshSampling
from pentad.model.attention_filters.rounds import Rounds
from pentad.model.attention_filters.sign_hash import SignHash
from pentad.model.attention_filters.weight_skip import WeightSkip
from ragged_batches import ragged, whole

SPEC = tiny_spec(
    vocab_size=131, width=96, heads=6, kv_heads=2, head_dim=32, ffn_width=160, context_length=256, layers=3
).with_attention(positions=Rope(dim=32))
WEIGHTS = random_weights(SPEC, "Q8_0")
TOKENS = np.random.default_rng(9).integers(0, SPEC.vocab_size, 150).tolist()
KEEPS_ALL: dict[str, dict[str, Any]] = {
    "candidate-search": {"products": 0, "least": 0},
    "cascade": {"tokens": 1, "heads": 1, "bits": 0},
    "key-channels": {"dropped": 0},
    "low-bit-mask": {"threshold": 0},
    "lsh-sampling": {"tables": 0},
    "rounds": {"cuts": [-1, -1]},
    "sign-hash": {"share": 0},
    "weight-skip": {"threshold": 0},
}
LEAVES_OUT: dict[str, dict[str, Any]] = {
    "candidate-search": {"products": 0.3},
    "cascade": {"whole_layers": 1},
    "lsh-sampling": {"last": 8, "tables": 20},
    "low-bit-mask": {"threshold": 0.01},
    "rounds": {"bits": [2, 4], "cuts": [0.0, 0.1]},
    "sign-hash": {"share": 0.5, "bits": 128},
    "weight-skip": {"threshold": 0.01},
}
NAMES = sorted(set(registry.TABLE["attention_filter"]) - {"unfiltered"})
ROWS = {
    "candidate-search": "hw-a3",
    "cascade": "hw-spatten",
    "key-channels": "kv-think",
    "low-bit-mask": "hw-sanger",
    "lsh-sampling": "kv-magicpig",
    "rounds": "hw-energon",
    "sign-hash": "hw-elsa",
    "weight-skip": "hw-mnnfast",
}
EVERY = [pytest.param(name, marks=pytest.mark.row(ROWS[name], "mechanism")) for name in NAMES]


@pytest.fixture(scope="module")
def runner() -> Iterator[TorchRunner]:
    loaded = TorchRunner.load(SPEC, WEIGHTS, num_blocks=40, dtype="float32", threads=1)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def exact(runner: TorchRunner) -> np.ndarray:
    runner.filter_attention(build("attention_filter", Choice(name="unfiltered")))
    return runner.logits(whole(TOKENS))


def chosen(name: str, options: dict[str, Any]) -> AttentionFilter:
    found: AttentionFilter = build("attention_filter", Choice(name=name, options=options))
    return found


def filtered(runner: TorchRunner, filter: AttentionFilter, **options: Any) -> np.ndarray:
    runner.filter_attention(filter)
    return runner.logits(whole(TOKENS, **options))


@pytest.mark.parametrize("name", EVERY)
def test_what_keeps_all_is_exact(name: str, runner: TorchRunner, exact: np.ndarray) -> None:
    found = filtered(runner, chosen(name, KEEPS_ALL[name]))
    np.testing.assert_allclose(found, exact, atol=2e-4)
    assert runner.filtering is not None
    counts = runner.filtering.counts
    assert counts.seen == SPEC.layers * SPEC.heads * len(TOKENS) * (len(TOKENS) + 1) // 2
    assert counts.scored == counts.weighted == counts.seen


@pytest.mark.parametrize("name", EVERY)
def test_batches_and_chunks_change_nothing(name: str, runner: TorchRunner, exact: np.ndarray) -> None:
    filter = chosen(name, LEAVES_OUT.get(name, {}))
    expected = filtered(runner, filter)
    assert np.abs(expected - exact).max() > 1e-3
    assert runner.filtering is not None
    counts = runner.filtering.counts
    if name != "key-channels":
        assert counts.weighted < counts.seen
    assert counts.full_bits == 2 * counts.seen * SPEC.head_dim * 16
    for size in (1, 37):
        parts = []
        for at in range(0, 60, size):
            step = [(TOKENS[at : min(at + size, 60)], at, range(20, 30))]
            if at == 0:  # another text in the same step
                step.insert(0, (TOKENS[5:30], 0, [31, 32]))
            parts.append(runner.logits(ragged(step))[-len(step[-1][0]) :])
        apart = np.abs(np.concatenate(parts) - expected[:60]).max(axis=1)
        # The last bit of a sum depends on the batch and may move a code by a step: less than a filter does.
        assert np.median(apart) < 2e-4
        assert apart.max() < min(0.02, np.abs(expected - exact).max() / 5)


def look(tokens: int = 48, heads: int = 2, dim: int = 32, seed: int = 0) -> Look:
    rng = np.random.default_rng(seed)
    queries, keys = (rng.standard_normal((heads, tokens, dim)).astype(np.float32) for _ in range(2))
    return Look(layer=0, queries=2 * queries, keys=keys, visible=np.tri(tokens, dtype=bool), scale=dim**-0.5)


@pytest.mark.row("hw-a3", "mechanism")
def test_all_partial_products_make_the_score() -> None:
    seen = look(tokens=20)
    keep = CandidateSearch(products=seen.keys.shape[-1]).choose(seen).keep
    np.testing.assert_array_equal(keep, seen.scores(seen.queries, seen.keys) > 0)
    few = CandidateSearch(products=0.2).choose(seen)
    assert few.keep.sum() < keep.sum()
    one = CandidateSearch(products=1e-9).choose(seen).keep  # the largest product alone, and the smallest
    assert (one.sum(axis=-1) <= 2).all()


@pytest.mark.row("hw-elsa", "mechanism")
def test_hashes_estimate_angles_closer_with_more_bits() -> None:
    seen = look(tokens=64)
    below = seen.all()
    true = seen.scores(seen.queries, seen.keys)[below]
    found = [np.corrcoef(SignHash(bits=bits).estimated(seen)[below], true)[0, 1] for bits in (32, 128, 1024)]
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.95


@pytest.mark.row("hw-spatten", "mechanism", claims=(2,))
def test_what_is_left_out_stays_out() -> None:
    seen, run = look(), Cascade(tokens=0.2, heads=0.5, whole_layers=1).start(SPEC)
    keeps, heads = [], []
    for layer in range(SPEC.layers):
        found = run.choose(dataclasses.replace(look(seed=layer), layer=layer))
        assert found.heads is not None
        keeps.append(found.keep)
        heads.append(found.heads)
        weights = np.random.default_rng(layer).random(seen.shape).astype(np.float32) * found.keep
        run.note(weights, weights @ seen.keys)
    assert keeps[0].sum() == seen.all().sum()
    for earlier, later in itertools.pairwise(keeps):
        assert not (later & ~earlier).any()
        assert later.sum() < earlier.sum()
    assert heads[-1].mean() == 0.5


@pytest.mark.row("hw-spatten", "mechanism")
def test_few_bits_are_enough_where_a_weight_stands_out() -> None:
    seen = look(tokens=40)
    few = Cascade(tokens=1, heads=1, bits=6, flat=0).start(SPEC).choose(seen)
    all_flat = Cascade(tokens=1, heads=1, bits=6, flat=1).start(SPEC).choose(seen)
    assert few.score_bits == int(seen.all().sum()) * 6 * 32
    assert all_flat.score_bits is not None
    assert all_flat.score_bits > few.score_bits
    assert few.scores is not None
    assert all_flat.scores is not None
    true = seen.scores(seen.queries, seen.keys)[seen.all()]
    assert np.abs(few.scores[seen.all()] - true).max() > 1e-3
    single = seen.visible.sum(axis=-1) == 1  # a weight of 1 is never flat
    np.testing.assert_array_equal(
        all_flat.scores[:, ~single], seen.scores(seen.queries, seen.keys)[:, ~single]
    )


@pytest.mark.row("hw-sanger", "mechanism")
def test_sparse_rows_are_packed_full() -> None:
    assert packed_rows([3, 3, 2], 8) == 1
    assert packed_rows([17], 8) == 3
    lengths = LowBitMask(threshold=0.02).choose(look(tokens=64)).keep.sum(axis=-1).ravel().tolist()
    packed = packed_rows(lengths, 16)
    assert packed < len(lengths) < len(lengths) * 64 // 16
    assert packed * 16 >= sum(lengths)


@pytest.mark.row("hw-energon", "mechanism")
def test_later_rounds_read_only_what_earlier_ones_left() -> None:
    seen = look()
    first, both = (Rounds(bits=(2, 4), cuts=(0.0, cut)).choose(seen) for cut in (-1, 0.2))
    assert not (both.keep & ~first.keep).any()
    assert both.keep.sum() < first.keep.sum() < seen.all().sum()
    assert first.read_bits == both.read_bits == (2 * int(seen.all().sum()) + 4 * int(first.keep.sum())) * 32
    with pytest.raises(InvalidRequest, match="3 bits and 2 cuts"):
        Rounds(bits=(2, 3, 4))


@pytest.mark.row("hw-mnnfast", "mechanism")
def test_values_below_the_threshold_are_not_read() -> None:
    weights = np.array([[[0.5, 0.02, 0.005, 0.475]]], np.float32)
    read = WeightSkip(threshold=0.01).skip(weights)
    assert read is not None
    assert read.tolist() == [[[True, True, False, True]]]


@pytest.mark.row("kv-magicpig", "mechanism")
def test_weighed_samples_give_the_sum_on_average() -> None:
    seen = look(tokens=64, heads=1)
    raised = np.exp(seen.scores(seen.queries, seen.keys))[0, -1]
    estimates = []
    for seed in range(300):
        found = LshSampling(tables=30, bits=4, first=1, last=4, seed=seed).choose(seen)
        assert found.log_shares is not None
        estimates.append((raised * np.exp(found.log_shares[0, -1]) * found.keep[0, -1]).sum())
    assert np.mean(estimates) == pytest.approx(raised.sum(), rel=0.05)


@pytest.mark.row("kv-think", "mechanism")
def test_the_channels_of_least_product_are_dropped_and_random_ones_cost_more() -> None:
    seen = look(tokens=64)
    seen.keys[:, :, ::3] *= 0.05
    true = seen.scores(seen.queries, seen.keys)[seen.all()]
    errors, bits = [], []
    for options in ({}, {"random": True}):
        found = KeyChannels(dropped=0.3, last=4, **options).choose(seen)
        assert found.scores is not None
        errors.append(np.abs(found.scores[seen.all()] - true).mean())
        bits.append(found.score_bits)
    assert errors[0] < errors[1] / 3
    assert bits[0] == bits[1] < seen.all().sum() * 32 * 16


def test_a_window_is_refused_by_name(runner: TorchRunner) -> None:
    windowed = TorchRunner.load(SPEC.with_attention(window=20), WEIGHTS, num_blocks=2, dtype="float32")
    with pytest.raises(Incompatible, match="do not all weigh every position") as error:
        windowed.filter_attention(WeightSkip())
    assert error.value.param == "attention_filter"
    windowed.filter_attention(build("attention_filter", Choice(name="unfiltered")))
    assert runner.spec is SPEC
