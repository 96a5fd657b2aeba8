"""Verification keeps the target's distribution: against enumeration, and by counting many draws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.sampling import distribution, draw, pick, uniform
from pentad.execution.speculation.tree import TokenTree, chain
from pentad.execution.speculation.verify import drafting, residual, verify, without
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


def outcomes(
    children: int, *, replacement: bool, temperature: float, rounds: int, seed: int
) -> tuple[Counter[int], np.ndarray, int]:
    """First tokens of many verified trees with so many siblings, what they should be, and accepted ones."""
    rng = np.random.default_rng(seed)
    target, draft = (rng.normal(size=V) * 1.5 for _ in range(2))
    target[3] = -np.inf if temperature != 1.0 else target[3]  # as if a mask forbade it
    q = softmax(draft)
    counts: Counter[int] = Counter()
    accepted = 0
    for i in range(rounds):
        row = SampleRow(temperature=temperature, seed=i, position=40, raw=True)
        tokens: list[int] = []
        for node in range(children):
            rest = q if replacement else without(q, tokens)
            tokens.append(pick(rest, uniform(i, 0, 40, drafting(node))))
        tree = TokenTree(
            tokens=tuple(tokens),
            parents=(-1,) * children,
            proposals=(q,) * children,
            replacement=replacement,
        )
        behind = [Drawn(token=0)] * children
        verdict = verify(tree, [row] * (1 + children), [raw(target), *behind])
        counts[verdict.drawn[0].token] += 1
        accepted += bool(verdict.path)
    return counts, distribution(target.astype(np.float32), SampleRow(temperature=temperature)), accepted


@pytest.mark.row("sd-leviathan", "mechanism")
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_rejection_with_one_draft_draws_from_the_target(temperature: float) -> None:
    counts, expected, accepted = outcomes(1, replacement=True, temperature=temperature, rounds=3000, seed=1)
    assert 500 < accepted < 2950
    assert deviation(counts, dict(enumerate(expected))) < 3


@pytest.mark.row("sd-specinfer", "mechanism")
@pytest.mark.parametrize("children", [2, 4])
def test_several_drafts_with_replacement_draw_from_the_target(children: int) -> None:
    counts, expected, accepted = outcomes(children, replacement=True, temperature=1.0, rounds=3000, seed=2)
    one = outcomes(1, replacement=True, temperature=1.0, rounds=3000, seed=2)[2]
    assert accepted > one
    assert deviation(counts, dict(enumerate(expected))) < 3


@pytest.mark.row("sd-sequoia", "mechanism")
@pytest.mark.parametrize("children", [2, 4, 6])
def test_several_drafts_without_replacement_draw_from_the_target_and_are_accepted_more_often(
    children: int,
) -> None:
    counts, expected, accepted = outcomes(children, replacement=False, temperature=1.0, rounds=3000, seed=3)
    again = outcomes(children, replacement=True, temperature=1.0, rounds=3000, seed=3)[2]
    assert accepted > again
    assert deviation(counts, dict(enumerate(expected))) < 3
    if children == V:
        assert accepted == 3000  # all tokens are there


def test_the_test_of_distributions_notices_a_wrong_rule() -> None:
    counts, expected, _ = outcomes(2, replacement=True, temperature=1.0, rounds=3000, seed=2)
    wrong = np.roll(expected, 1)
    assert deviation(counts, dict(enumerate(wrong))) > 10
    slightly = expected * np.linspace(0.8, 1.2, V)
    assert deviation(counts, dict(enumerate(slightly / slightly.sum()))) > 3


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
