"""Verification keeps the target's distribution: against enumeration, and by counting many draws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.sampling import distribution, draw, uniform
from pentad.execution.speculation.tree import TokenTree, chain
from pentad.execution.speculation.verify import residual, verify, without
from speculation_support import deviation

V = 6


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def raw(logits: np.ndarray) -> Drawn:
    return Drawn(token=-1, logits=logits.astype(np.float32))


def test_greedy_keeps_the_branch_that_the_target_takes() -> None:
    tree = TokenTree(tokens=(1, 2, 3, 4), parents=(-1, -1, 1, 2))
    rows = [SampleRow(temperature=0)] * 5
    tokens = [2, 9, 3, 5, 8]  # behind the last token, then behind each node
    verdict = verify(tree, rows, [Drawn(token=token) for token in tokens])
    assert verdict.path == (1, 2)
    assert [drawn.token for drawn in verdict.drawn] == [2, 3, 5]


def test_everything_behind_the_first_rejection_is_dropped() -> None:
    tree = chain((1, 2, 3))
    verdict = verify(tree, [SampleRow(temperature=0)] * 4, [Drawn(token=t) for t in (1, 7, 3, 4)])
    assert verdict.path == (0,)
    assert [drawn.token for drawn in verdict.drawn] == [1, 7]


def test_when_all_are_accepted_one_more_token_comes_for_nothing() -> None:
    tree = chain((1, 2, 3))
    verdict = verify(tree, [SampleRow(temperature=0)] * 4, [Drawn(token=t) for t in (1, 2, 3, 4)])
    assert verdict.path == (0, 1, 2)
    assert [drawn.token for drawn in verdict.drawn] == [1, 2, 3, 4]


def test_the_residual_is_what_the_target_has_beyond_the_draft() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.7, 0.1])
    np.testing.assert_allclose(residual(p, q), [0.75, 0, 0.25])
    np.testing.assert_allclose(residual(p, p), p)
    np.testing.assert_allclose(without(q, [1]), [2 / 3, 0, 1 / 3])


def test_a_distribution_is_what_draws_come_from() -> None:
    logits = np.random.default_rng(4).normal(size=V).astype(np.float32) * 2
    for options in ({}, {"top_p": 0.8}, {"top_k": 3}, {"min_p": 0.2, "temperature": 0.7}, {"banned": (2,)}):
        row = SampleRow(**options)  # type: ignore[arg-type]
        expected = distribution(logits, row)
        assert expected.sum() == pytest.approx(1)
        counts = Counter(
            draw(logits, SampleRow(seed=i, position=3, **options)).token  # type: ignore[arg-type]
            for i in range(3000)
        )
        assert all(expected[token] > 0 for token in counts)
        if (expected > 0).sum() > 3:
            assert deviation(counts, dict(enumerate(expected))) < 3
    assert distribution(logits, SampleRow(temperature=0)).argmax() == logits.argmax()
    assert distribution(logits, SampleRow(temperature=0)).max() == 1


def test_a_row_that_asks_for_raw_logits_is_not_drawn() -> None:
    logits = np.arange(V, dtype=np.float32)
    drawn = draw(logits, SampleRow(temperature=0, raw=True))
    assert drawn.token == -1
    assert drawn.logits is not None
    np.testing.assert_array_equal(drawn.logits, logits)


def test_log_probabilities_of_rejected_and_accepted_drafts_are_the_models() -> None:
    logits = np.array([1.0, 2.0, 0.5, 0.0, -1.0, 1.5])
    q = np.full(V, 1 / V)
    expected = np.log(softmax(logits))
    for seed in range(20):
        row = SampleRow(temperature=1.0, seed=seed, position=5, raw=True, logprobs=2)
        tree = chain((seed % V,), (q,))
        verdict = verify(tree, [row, row], [raw(logits), Drawn(token=0)])
        first = verdict.drawn[0]
        assert first.logprob == pytest.approx(expected[first.token], abs=1e-6)
        assert [token for token, _ in first.alternatives] == [1, 5]


def test_streams_of_random_numbers_do_not_meet() -> None:
    numbers = [uniform(7, 0, 12, stream) for stream in range(300)]
    assert len(set(numbers)) == 300
    assert uniform(7, 0, 12) == numbers[0]
