"""Heavy hitters: which entries stay, in each head for itself."""

from __future__ import annotations

import numpy as np

from pentad.execution.kv.policy import KVView
from pentad.model.kv_policies.accumulated_attention import AccumulatedAttention
from pentad.testing.runners import toy_spec


def view(scores: list[list[float]], positions: list[list[int]], computed: int) -> KVView:
    return KVView(
        spec=toy_spec(heads=len(scores)),
        tokens=list(range(computed)),
        prompt_tokens=4,
        computed=computed,
        lens=np.array([sum(p >= 0 for p in row) for row in positions], np.int32),
        positions=np.array(positions, np.int32),
        scores=lambda: np.array(scores),
    )


def test_each_head_keeps_its_most_attended_entries_and_the_last_ones() -> None:
    run = AccumulatedAttention(heavy=2, recent=2).start(toy_spec())
    keep = run.after_prefill(
        view(
            [[9.0, 1.0, 8.0, 2.0, 0.1, 0.2], [1.0, 7.0, 2.0, 8.0, 0.1, 0.0]],
            [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]],
            computed=6,
        )
    )
    assert keep is not None
    assert [np.flatnonzero(row).tolist() for row in keep] == [[0, 2, 4, 5], [1, 3, 4, 5]]


def test_positions_and_not_slots_say_what_is_recent() -> None:
    run = AccumulatedAttention(heavy=1, recent=2).start(toy_spec())
    keep = run.after_step(view([[3.0, 0.1, 2.0, 0.2]], [[0, 9, 4, 8]], computed=10))
    assert keep is not None
    assert np.flatnonzero(keep[0]).tolist() == [0, 1, 3]


def test_a_head_within_its_budget_loses_nothing() -> None:
    run = AccumulatedAttention(heavy=1, recent=2).start(toy_spec())
    assert run.after_step(view([[1.0, 1.0, 1.0]], [[0, 1, 2]], computed=3)) is None
