"""Heavy hitters: which entries stay, in each head for itself."""

from __future__ import annotations

import numpy as np
import pytest

from kv_policy_support import runner
from pentad.execution.kv.policy import KVView
from pentad.model.kv_policies.accumulated_attention import AccumulatedAttention
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import token_request, toy_engine
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


@pytest.mark.row("kv-h2o", "mechanism", claims=(2,))
def test_bytes_are_capped_by_the_budget_in_every_step() -> None:
    policy = AccumulatedAttention(heavy=6, recent=6)
    toy = runner(policy)
    engine = toy_engine(Sarathi(), runner=toy, kv_policy=policy, prefix_cache=False)
    engine.add(token_request("r", range(30), 40))
    engine.step()
    while engine.has_work:
        assert engine.stats()["kv_blocks_held"] * toy.block_bytes == 12 // toy.block_size * toy.block_bytes
        engine.step()
        if engine.has_work:
            # A step writes its token before the least attended entry goes, in a page that goes with it.
            assert engine.stats()["kv_blocks_held"] == 12 // toy.block_size


@pytest.mark.row("tr-attention-score", "mechanism")
def test_the_least_attended_entries_go_without_any_training() -> None:
    run = AccumulatedAttention(heavy=2, recent=1).start(toy_spec())
    keep = run.after_step(view([[5.0, 1.0, 4.0, 2.0, 3.0]], [[0, 1, 2, 3, 4]], computed=5))
    assert keep is not None
    assert np.flatnonzero(keep[0]).tolist() == [0, 2, 4]
