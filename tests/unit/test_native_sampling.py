"""The kernels' sampler draws what the numpy reference draws, row by row."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from native_support import HERE
from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.native.library import open_library
from pentad.execution.native.sampling import DrawPlan
from pentad.execution.sampling import draw, draw_batch, is_plain

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")


def native(name: str, logits: np.ndarray, rows: list[SampleRow]) -> list[Drawn]:
    """Draws from given logits; no row may be plain."""
    plan = DrawPlan(logits.shape[1])
    assert plan.set(rows)
    functions = open_library(name).functions
    functions.pentad_draw(logits.ctypes.data, logits.shape[1], ctypes.byref(plan.struct))
    return plan.results([-1] * len(rows))


def assert_equal(found: Drawn, expected: Drawn) -> None:
    assert found.token == expected.token
    assert [token for token, _ in found.alternatives] == [token for token, _ in expected.alternatives]
    assert (found.logprob is None) == (expected.logprob is None)
    if found.logprob is not None and expected.logprob is not None:
        assert abs(found.logprob - expected.logprob) < 1e-9
        ours, theirs = ([p for _, p in drawn.alternatives] for drawn in (found, expected))
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


def random_mask(rng: np.random.Generator, vocab: int) -> np.ndarray:
    allowed = rng.random(vocab) < rng.choice([0.01, 0.5, 0.99])
    allowed[rng.integers(vocab)] = True
    words = np.packbits(np.pad(allowed, (0, -vocab % 32)), bitorder="little").view(np.uint32)
    if rng.random() < 0.2:  # tokens beyond the mask are not allowed
        words = words[: max(1, len(words) // 2)].copy()
        words[0] |= 1
    return words


def random_row(rng: np.random.Generator, vocab: int) -> SampleRow:
    """Every feature on or off; ids may lie outside the vocabulary."""
    mask = random_mask(rng, vocab) if rng.random() < 0.3 else None
    banned = rng.integers(0, vocab, rng.integers(0, 3)) if vocab > 64 and mask is None else []

    def ids(count: int) -> list[int]:
        return rng.integers(0, vocab + 5, count).tolist()

    return SampleRow(
        temperature=float(rng.choice([0, 0.3, 0.7, 1, 1.5])),
        top_p=float(rng.choice([1, 0.5, 0.9, 0.99])),
        top_k=int(rng.choice([0, 1, 5, 40, 300, 10**6])),
        min_p=float(rng.choice([0, 0, 0.05, 0.2])),
        presence_penalty=float(rng.choice([0, 0.5])),
        frequency_penalty=float(rng.choice([0, 0.3])),
        repetition_penalty=float(rng.choice([1, 1.1, 0.8])),
        output_counts=dict(zip(ids(5), rng.integers(1, 5, 5).tolist(), strict=True)),
        seen=set(ids(20)),
        logit_bias=dict.fromkeys(ids(int(rng.integers(0, 3))), float(rng.normal() * 5)),
        banned=tuple(int(token) for token in banned),
        mask=mask,
        seed=int(rng.integers(0, 2**63)) * 2 + 1,
        choice=int(rng.integers(0, 9)),
        position=int(rng.integers(0, 2**40)),
        logprobs=rng.choice([None, 0, 5, 20]),
    )


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("seed", range(3))
def test_random_rows_draw_the_reference_s_tokens(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        vocab, count = int(rng.choice([7, 64, 100, 1000, 5003, 49152])), int(rng.integers(1, 6))
        logits = (rng.normal(size=(count, vocab)) * rng.choice([0.5, 2, 5])).astype(np.float32)
        if rng.random() < 0.3:
            logits = np.round(logits * 2) / 2  # many exact ties
        rows = [random_row(rng, vocab) for _ in range(count)]
        chosen = [i for i, row in enumerate(rows) if not is_plain(row)]
        rows, logits = [rows[i] for i in chosen], logits[chosen]
        before = logits.copy()
        for i, found in enumerate(native(name, logits, rows) if rows else []):
            assert_equal(found, draw(logits[i], rows[i]))
        np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("name", HERE)
def test_draws_follow_the_distribution(name: str) -> None:
    probabilities = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    logits = np.tile(np.log(probabilities).astype(np.float32), (1000, 1))
    rows = [SampleRow(seed=i, position=7) for i in range(1000)]
    counts = np.bincount([drawn.token for drawn in native(name, logits, rows)], minlength=5)
    chi_square = float((((counts - 1000 * probabilities) ** 2) / (1000 * probabilities)).sum())
    assert chi_square < 18.5  # 4 degrees of freedom, one in a thousand


@pytest.mark.parametrize("name", HERE)
def test_a_nucleus_of_nearly_all_tokens_is_the_reference_s(name: str) -> None:
    rng = np.random.default_rng(3)
    logits = (rng.normal(size=(8, 20_000)) * 0.05).astype(np.float32)
    rows = [SampleRow(top_p=0.97, seed=i, min_p=0.5 if i % 2 else 0.0) for i in range(8)]
    for i, found in enumerate(native(name, logits, rows)):
        assert_equal(found, draw(logits[i], rows[i]))


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize(
    ("values", "changes", "fault"),
    [
        ([1.0, np.nan, 0.0], {}, "not_finite"),
        ([1.0, np.inf, 0.0], {}, "not_finite"),
        ([1.0, np.nan, 0.0], {"temperature": 0, "logprobs": 1}, "not_finite"),
        ([1.0, np.nan, 0.0], {"banned": (1,), "logprobs": 1}, "not_finite"),
        ([1.0, 2.0, 0.0], {"repetition_penalty": 5e-324, "seen": {1}}, "overflow"),
        ([1.0, 2.0, 0.0], {"logit_bias": {1: 1e300}, "temperature": 0}, "overflow"),
        ([1.0, 2.0, 0.0], {"mask": np.zeros(1, np.uint32)}, "none_allowed"),
        ([1.0, 2.0, 0.0], {"banned": (0, 1, 2)}, "none_allowed"),
        ([1.0, 2.0, 0.0], {"banned": (0, 1, 2), "temperature": 0}, "none_allowed"),
    ],
)
def test_a_row_that_allows_no_draw_says_why_and_its_neighbours_are_drawn(
    name: str, values: list[float], changes: dict[str, Any], fault: str
) -> None:
    logits = np.array([[3.0, 1.0, 2.0], values, [0.0, 1.0, 2.0]], np.float32)
    rows = [SampleRow(temperature=0, logprobs=0), SampleRow(**changes), SampleRow(temperature=0, logprobs=0)]
    found = native(name, logits, rows)
    assert found[1] == Drawn(token=-1, fault=fault)  # type: ignore[arg-type]
    assert [found[0].token, found[2].token] == [0, 2]
    assert draw_batch(logits, rows)[1] == found[1]


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-300, 9e-7])
def test_the_smallest_temperatures_draw_the_most_probable_token(name: str, temperature: float) -> None:
    logits = np.array([[0.0, 3.0, 2.0, 1.0]], np.float32)
    row = SampleRow(temperature=temperature, mask=np.array([0b1101], np.uint32), seed=5)
    assert [native(name, logits, [row])[0].token, draw(logits[0], row).token] == [2, 2]


def test_a_token_under_no_mask_bit_is_never_drawn_even_where_all_else_is_improbable() -> None:
    logits = np.array([[800.0, -800.0, 799.0, -799.0]], np.float32)
    mask = np.array([0b1010], np.uint32)
    for seed in range(20):
        for name in HERE:
            assert native(name, logits, [SampleRow(mask=mask, seed=seed)])[0].token in (1, 3)


def test_a_plan_is_used_again_for_more_and_fewer_rows() -> None:
    plan = DrawPlan(50)
    functions = open_library(HERE[0]).functions
    rng = np.random.default_rng(0)
    for count in (1, 30, 3, 17):
        logits = rng.normal(size=(count, 50)).astype(np.float32)
        rows = [SampleRow(seed=i, logprobs=i % 4, logit_bias={i: 2.0}) for i in range(count)]
        assert plan.set(rows)
        functions.pentad_draw(logits.ctypes.data, 50, ctypes.byref(plan.struct))
        for i, found in enumerate(plan.results([-1] * count)):
            assert_equal(found, draw(logits[i], rows[i]))
    assert not plan.set([SampleRow(temperature=0)])
    assert plan.results([9]) == [Drawn(token=9)]
