"""Samples of steps are made when somebody looks, and are those that each step would have left."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pentad.execution.pace import Pace
from pentad.execution.step_samples import KEPT, StepSample, StepSamples


@dataclass(frozen=True, slots=True)
class View:
    num_computed: int
    num_tokens: int


def test_a_step_with_a_chunk_is_counted_before_it_is_computed() -> None:
    samples = StepSamples()
    samples.add([(View(30, 31), 1), (View(10, 20), 4)], 0.5)  # type: ignore[list-item]
    # 31 slots of the one that decodes, 14 of the chunk, whose tokens see 11, 12, 13 and 14 slots.
    assert list(samples) == [StepSample(2, 1, 4, 45, 50, 0.5)]
    assert samples.total == 1


@pytest.mark.parametrize(("count", "draws"), [(4, False), (10, True)])
def test_a_chunk_within_a_prompt_draws_nothing(count: int, draws: bool) -> None:
    samples = StepSamples()
    samples.add([(View(10, 20), count)], 0.5)  # type: ignore[list-item]
    assert samples[-1].draws == draws


@pytest.mark.parametrize("looks", [True, False])
def test_series_and_steps_in_turn_keep_the_latest_whether_somebody_looks_or_not(looks: bool) -> None:
    samples = StepSamples()
    expected: list[StepSample] = []
    for turn in range(5):
        seconds = [turn + step / 1000 for step in range(90)]
        samples.add_decodes(3, 100, seconds)
        expected += [StepSample(3, 3, 0, 100 + 3 * step, 0, each) for step, each in enumerate(seconds)]
        samples.add([(View(7, 8), 1)], float(turn))  # type: ignore[list-item]
        expected.append(StepSample(1, 1, 0, 8, 0, float(turn)))
        if looks:
            assert samples[-1] == expected[-1]
    assert len(samples) == KEPT
    assert list(samples) == expected[-KEPT:]
    assert samples[-2:] == tuple(expected[-2:])
    assert samples.total == len(expected)


@pytest.mark.parametrize("tokens", [1, 8, 9, 40])
def test_the_pace_behind_many_steps_is_that_behind_each(tokens: int) -> None:
    seconds = [0.01, 0.5, 0.0, 0.02, 0.003] * 40
    for begin in (Pace(), Pace(least_s=0.02, prompt_token_s=0.001)):
        pace = begin
        for each in seconds:
            pace = pace.after(tokens, each)
        assert begin.after_all(tokens, seconds) == pace
