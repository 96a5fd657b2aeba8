"""The numpy sampler: its distribution, each option, and the independence of its draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.sampling import Undrawable, allowed_tokens, draw, draw_batch, is_plain, uniform

LOGITS = np.array([2.0, 1.0, 0.0, -1.0, 1.5, -3.0, 0.5, 1.0], dtype=np.float32)
CHI_SQUARE_99_9 = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 7: 24.32}


def softmax(logits: Any, temperature: float = 1.0) -> Any:
    weights = np.exp((np.asarray(logits, dtype=np.float64) - np.max(logits)) / temperature)
    return weights / weights.sum()


def draws(count: int, **options: Any) -> Counter[int]:
    return Counter(draw(LOGITS, SampleRow(seed=7, position=i, **options)).token for i in range(count))


def assert_follows(counts: Counter[int], expected: Any) -> None:
    """Chi-square at the 0.1% level; tokens of probability 0 must not occur at all."""
    total = counts.total()
    possible = [token for token, p in enumerate(expected) if p > 0]
    assert set(counts) <= set(possible)
    statistic = sum(
        (counts[token] - total * expected[token]) ** 2 / (total * expected[token]) for token in possible
    )
    if len(possible) > 1:
        assert statistic < CHI_SQUARE_99_9[len(possible) - 1]


def keep(probabilities: Any, tokens: set[int]) -> Any:
    kept = np.array([p if i in tokens else 0.0 for i, p in enumerate(probabilities)])
    return kept / kept.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_distribution(temperature: float) -> None:
    assert_follows(draws(4000, temperature=temperature), softmax(LOGITS, temperature))


def test_the_chi_square_check_notices_a_wrong_temperature() -> None:
    with pytest.raises(AssertionError):
        assert_follows(draws(4000, temperature=1.0), softmax(LOGITS, 1.3))


def test_top_k_keeps_the_k_most_probable_with_ties_to_the_lowest_id() -> None:
    assert_follows(draws(3000, top_k=3), keep(softmax(LOGITS), {0, 4, 1}))


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass() -> None:
    probabilities = softmax(LOGITS)
    two = probabilities[0] + probabilities[4]
    assert_follows(draws(3000, top_p=float(two) - 1e-6), keep(probabilities, {0, 4}))
    assert_follows(draws(3000, top_p=float(two) + 1e-6), keep(probabilities, {0, 4, 1}))
    assert set(draws(200, top_p=0.0)) == {0}


def test_min_p_keeps_tokens_near_the_most_probable() -> None:
    # exp(1.0 - 2.0) = 0.37 of the most probable one stays, exp(0.5 - 2.0) = 0.22 goes
    assert_follows(draws(3000, min_p=0.3), keep(softmax(LOGITS), {0, 1, 4, 7}))


def test_filters_combine_on_what_the_one_before_left() -> None:
    kept = keep(softmax(LOGITS), {0, 4, 1, 7})
    assert_follows(draws(3000, top_k=4, top_p=float(kept[0] + kept[4]) - 1e-6), keep(kept, {0, 4}))


@pytest.mark.parametrize("options", [{"top_k": 8}, {"top_k": 99}, {"min_p": 1e-9}, {"top_p": 0.999_999_999}])
def test_a_filter_that_removes_nothing_changes_no_draw(options: dict[str, Any]) -> None:
    for position in range(200):
        plain = draw(LOGITS, SampleRow(seed=1, position=position))
        assert draw(LOGITS, SampleRow(seed=1, position=position, **options)) == plain


def test_top_p_is_exact_on_a_large_vocabulary_of_nearly_equal_tokens() -> None:
    logits = np.linspace(0, 0.01, 5000, dtype=np.float32)  # more tokens than are sorted at first
    drawn = {draw(logits, SampleRow(top_p=0.5, seed=3, position=i)).token for i in range(500)}
    probabilities = np.sort(softmax(logits))[::-1]
    kept = int(np.searchsorted(probabilities.cumsum(), 0.5)) + 1
    assert min(drawn) >= 5000 - kept
    assert min(drawn) < 5000 - kept * 0.95


def test_greedy_takes_the_lowest_id_of_equal_logits() -> None:
    logits = np.array([0.0, 3.0, 3.0, 1.0], dtype=np.float32)
    assert draw(logits, SampleRow(temperature=0)).token == 1
    assert draw(logits, SampleRow(temperature=0, logit_bias={0: 3.0})).token == 0


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = np.array([3.0, 2.0, -1.0, -1.5], dtype=np.float32)
    assert draw(logits, SampleRow(temperature=0, repetition_penalty=2.0, seen={0})).token == 1
    negative = np.array([-1.0, -1.5, -9.0, -9.0], dtype=np.float32)
    assert draw(negative, SampleRow(temperature=0, repetition_penalty=2.0, seen={0})).token == 1
    assert draw(logits, SampleRow(temperature=0, repetition_penalty=1.4, seen={0})).token == 0


def test_presence_penalty_counts_once_and_frequency_penalty_each_time() -> None:
    logits = np.array([3.0, 2.0, 0.0], dtype=np.float32)
    counts = {0: 4}
    assert draw(logits, SampleRow(temperature=0, presence_penalty=0.9, output_counts=counts)).token == 0
    assert draw(logits, SampleRow(temperature=0, presence_penalty=1.1, output_counts=counts)).token == 1
    assert draw(logits, SampleRow(temperature=0, frequency_penalty=0.3, output_counts=counts)).token == 1
    assert draw(logits, SampleRow(temperature=0, frequency_penalty=0.2, output_counts=counts)).token == 0


def test_logit_bias_shifts_the_distribution_and_ignores_unknown_tokens() -> None:
    shifted = LOGITS.copy()
    shifted[3] += 2.5
    assert_follows(draws(3000, logit_bias={3: 2.5, 10_000: 9.0, -1: 9.0}), softmax(shifted))


def test_banned_tokens_and_mask_are_never_drawn() -> None:
    assert_follows(draws(3000, banned=(0, 4, 500)), keep(softmax(LOGITS), {1, 2, 3, 5, 6, 7}))
    mask = np.array([0b1000_0110], dtype=np.uint32)
    assert_follows(draws(3000, mask=mask), keep(softmax(LOGITS), {1, 2, 7}))
    assert draw(LOGITS, SampleRow(temperature=0, mask=mask)).token == 1


def test_mask_bits_count_across_words_and_beyond_the_mask_nothing_is_allowed() -> None:
    mask = np.zeros(3, dtype=np.uint32)
    mask[1] = 1 << 5
    mask[2] = 1 << 31
    assert np.flatnonzero(allowed_tokens(mask, 96)).tolist() == [37, 95]
    assert np.flatnonzero(allowed_tokens(mask, 70)).tolist() == [37]
    assert np.flatnonzero(allowed_tokens(mask, 200)).tolist() == [37, 95]


def test_logprobs_are_those_of_the_raw_model() -> None:
    row = SampleRow(temperature=0.3, top_k=2, logit_bias={5: 50.0}, logprobs=3, seed=2)
    drawn = draw(LOGITS, row)
    expected = np.log(softmax(LOGITS))
    assert drawn.token == 5
    assert drawn.logprob == pytest.approx(expected[5])
    assert [token for token, _ in drawn.alternatives] == [0, 4, 1]
    assert [value for _, value in drawn.alternatives] == pytest.approx(expected[[0, 4, 1]].tolist())


def test_logprobs_zero_reports_the_drawn_token_only() -> None:
    drawn = draw(LOGITS, SampleRow(temperature=0, logprobs=0))
    assert drawn.alternatives == ()
    assert drawn.logprob == pytest.approx(math.log(softmax(LOGITS)[0]))


def test_a_batch_draws_what_its_rows_draw_alone() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(6, 300)).astype(np.float32)
    rows = [
        SampleRow(temperature=0),
        SampleRow(seed=1, position=9),
        SampleRow(seed=1, choice=1, position=9, top_p=0.8),
        SampleRow(temperature=0, logprobs=2),
        SampleRow(seed=4, top_k=5, temperature=1.7),
        SampleRow(temperature=0, banned=(3,)),
    ]
    assert draw_batch(logits, rows) == [draw(logits[i], row) for i, row in enumerate(rows)]
    assert draw_batch(logits[:2], [SampleRow(temperature=0)] * 2) == [
        draw(logits[i], SampleRow(temperature=0)) for i in range(2)
    ]
    assert draw_batch(np.empty((0, 300), dtype=np.float32), []) == []


def test_uniforms_are_even_and_independent_of_each_other() -> None:
    for vary in (lambda i: (i, 0, 0), lambda i: (0, i, 0), lambda i: (0, 0, i)):
        values = np.array([uniform(*vary(i)) for i in range(3000)])
        counts = np.histogram(values, bins=8, range=(0, 1))[0]
        assert ((counts - 375) ** 2 / 375).sum() < CHI_SQUARE_99_9[7]
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.06
    assert uniform(-1, 0, 0) == uniform(2**64 - 1, 0, 0)


def test_uniform_is_the_published_philox_sequence() -> None:
    # Known answer of Philox4x64-10 (Random123, kat_vectors): key 0, counter 0. numpy counts up
    # before it draws, so its counter 2**256 - 1 is theirs 0.
    generator = np.random.Philox(key=np.zeros(2, dtype=np.uint64), counter=2**256 - 1)
    assert int(generator.random_raw()) == 0x16554D9ECA36314C
    first = int(np.random.Philox(key=np.array([5, 2], dtype=np.uint64), counter=11).random_raw())
    assert uniform(5, 2, 11) == (first >> 11) / 2**53


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda logits: logits.fill(np.nan), "not_finite"),
        (lambda logits: logits.__setitem__(3, np.inf), "not_finite"),
        (lambda logits: logits.fill(-np.inf), "none_allowed"),
    ],
)
@pytest.mark.parametrize(
    "row", [SampleRow(temperature=0), SampleRow(), SampleRow(temperature=0, banned=(1,))]
)
def test_broken_logits_raise_instead_of_drawing(
    change: Callable[[Any], None], told: str, row: SampleRow
) -> None:
    logits = LOGITS.copy()
    change(logits)
    with pytest.raises(Undrawable) as raised:
        draw(logits, row)
    assert raised.value.fault == told
    assert draw_batch(logits[None], [row]) == [Drawn(token=-1, fault=told)]  # type: ignore[arg-type]


def test_drawing_leaves_the_logits_as_they_are() -> None:
    logits = LOGITS.copy()
    logits.flags.writeable = False
    draw(
        logits,
        SampleRow(
            repetition_penalty=1.5,
            seen={1},
            presence_penalty=1,
            output_counts={1: 1},
            logit_bias={2: 1.0},
            banned=(3,),
            min_p=0.01,
            top_k=5,
            top_p=0.9,
            logprobs=2,
        ),
    )
    assert (logits == LOGITS).all()


def test_only_rows_that_ask_for_nothing_more_are_plain() -> None:
    assert is_plain(SampleRow(temperature=0, top_p=0.5, top_k=3, min_p=0.1, seed=4))
    not_plain: list[dict[str, Any]] = [
        {"temperature": 1.0},
        {"logprobs": 0},
        {"banned": (1,)},
        {"mask": np.ones(1, dtype=np.uint32)},
        {"logit_bias": {1: 1.0}},
        {"presence_penalty": 0.1},
        {"frequency_penalty": 0.1},
        {"repetition_penalty": 1.1},
    ]
    for options in not_plain:
        assert not is_plain(SampleRow(**{"temperature": 0, **options}))
