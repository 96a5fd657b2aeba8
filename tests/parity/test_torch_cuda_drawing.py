"""Drawing on the device draws what the numpy reference draws, here on tensors of the CPU.

Exactly, not statistically: the same random numbers pass through the same operations in float64, so
that only a draw within 1e-15 of the border of two tokens could differ, which no seed here is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pentad.execution.batch import SampleRow
from pentad.execution.sampling import draw_batch
from pentad.execution.torch.sampling import draw_rows
from torch_drawing import assert_same, random_logits, random_rows


@pytest.mark.parametrize("seed", range(30))
def test_random_rows_draw_the_reference_s_tokens_and_log_probabilities(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vocab, count = int(rng.choice([7, 64, 100, 1000, 5003])), int(rng.integers(1, 9))
    logits, rows = random_logits(rng, count, vocab), random_rows(rng, count, vocab)
    before = torch.from_numpy(logits.copy())
    given = before.clone()
    assert_same(draw_rows(given, rows), draw_batch(logits, rows))
    assert torch.equal(given, before), "the logits are left as they are"


@pytest.mark.parametrize("option", [{"top_p": 0.9}, {"top_k": 40}, {"min_p": 0.1}, {}])
def test_draws_at_many_positions_are_the_reference_s(option: dict[str, float]) -> None:
    logits = random_logits(np.random.default_rng(1), 1, 2000)
    row = SampleRow(temperature=0.8, seed=3, **option)  # type: ignore[arg-type]
    rows = [dataclasses.replace(row, position=i) for i in range(400)]
    expected = draw_batch(np.repeat(logits, 400, axis=0), rows)
    assert_same(draw_rows(torch.from_numpy(logits).expand(400, -1), rows), expected)
    assert len({drawn.token for drawn in expected}) > 3


def test_a_nucleus_of_more_tokens_than_are_sorted_at_first_is_the_reference_s() -> None:
    logits = np.zeros((3, 5000), np.float32)  # flat, so that ties decide who is in
    rows = [SampleRow(top_p=p, seed=5, position=i) for i, p in enumerate((0.5, 0.999, 1.0))]
    assert_same(draw_rows(torch.from_numpy(logits), rows), draw_batch(logits, rows))


def test_logits_in_bfloat16_draw_as_their_values_in_float32() -> None:
    rng = np.random.default_rng(2)
    half = torch.from_numpy(random_logits(rng, 6, 500)).bfloat16()
    rows = random_rows(rng, 6, 500)
    assert_same(draw_rows(half, rows), draw_batch(half.float().numpy(), rows))


def test_raw_rows_get_their_logits_and_their_neighbours_a_token() -> None:
    logits = random_logits(np.random.default_rng(4), 3, 50)
    rows = [SampleRow(temperature=0), SampleRow(raw=True, logit_bias={3: 9.0}), SampleRow(seed=1)]
    drawn = draw_rows(torch.from_numpy(logits), rows)
    assert [d.token for d in drawn] == [d.token for d in draw_batch(logits, rows)]
    assert drawn[1].logits is not None
    np.testing.assert_array_equal(drawn[1].logits, logits[1])


@pytest.mark.parametrize(
    ("value", "row", "fault"),
    [
        (np.nan, SampleRow(temperature=0), "not_finite"),
        (np.inf, SampleRow(seed=1, top_p=0.5, top_k=3), "not_finite"),
        (np.nan, SampleRow(seed=1, banned=(7,), logprobs=1), "not_finite"),
        (9.0, SampleRow(seed=1, repetition_penalty=5e-324, seen={7}), "overflow"),
        (0.0, SampleRow(seed=1, mask=np.zeros(2, np.uint32)), "none_allowed"),
        (0.0, SampleRow(temperature=0, banned=tuple(range(40))), "none_allowed"),
    ],
)
def test_a_row_that_cannot_be_drawn_from_says_why_like_the_reference_and_spares_the_others(
    value: float, row: SampleRow, fault: str
) -> None:
    logits = np.zeros((3, 40), np.float32)
    logits[1, 7] = value
    rows = [SampleRow(temperature=0), row, SampleRow(seed=2, temperature=1e-320)]
    found = draw_rows(torch.from_numpy(logits), rows)
    assert found == draw_batch(logits, rows)
    assert [drawn.fault for drawn in found] == [None, fault, None]
