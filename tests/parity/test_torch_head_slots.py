"""PyTorch with slots by head: the same as plain masks, and what it counts of attention."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from head_slot_support import Masked, OneSequence, head_batch, random_keep
from pentad.execution.torch.runner import TorchRunner
from pentad.model.kv_policies.sinks import Sinks
from ragged_batches import ragged
from torch_generation import engine, generate
from torch_reference import TINY, ArrayWeights, tiny_arrays

WEIGHTS = ArrayWeights(tiny_arrays(TINY))
TEXT = np.random.default_rng(3).integers(0, TINY.vocab_size, 150).tolist()
NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=[False, True], ids=["plain", "scored"])
def runner(request: pytest.FixtureRequest) -> Iterator[TorchRunner]:
    runner = TorchRunner.load(TINY, WEIGHTS, num_blocks=40, dtype="float32", attention_scores=request.param)
    yield runner
    runner.close()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_heads_see_what_they_keep(runner: TorchRunner, elsewhere: bool) -> None:
    one, masked = OneSequence(runner, TEXT[:100]), Masked(TINY, WEIGHTS)
    masked.compute(TEXT[:100])
    for round, at in enumerate(range(100, 150, 10)):
        keep = random_keep(TINY, one.tables.positions.shape[1], seed=round)
        one.drop(keep, elsewhere=elsewhere and round < 2)
        kept = np.zeros_like(masked.kept).reshape(one.heads, -1)
        for head, positions in enumerate(one.tables.positions):
            kept[head, positions[positions >= 0]] = True
        masked.kept = kept.reshape(masked.kept.shape)
        for token in TEXT[at : at + 10]:
            np.testing.assert_allclose(one.step(token), masked.compute([token]), **NEAR)
    one.tables.check_integrity()


def test_ordinary_sequences_beside_it_are_as_without(runner: TorchRunner) -> None:
    beside = ragged([(TEXT[:33], 0, [20, 21, 22]), (TEXT[50:51], 0, [23])], rows=[32, 33])
    expected = runner.logits(beside)
    one = OneSequence(runner, TEXT[:40])
    one.drop(random_keep(TINY, 48, seed=1))
    alone = one.step(TEXT[40])
    again = OneSequence(runner, TEXT[:40])
    again.drop(random_keep(TINY, 48, seed=1))
    again.tables.append(40, [30] * again.tables.missing_blocks())
    found = runner.logits(head_batch(TEXT[40], 40, again.tables, beside=beside))
    np.testing.assert_allclose(found, [*expected, alone], **NEAR)


def test_attention_is_counted_of_prompts_in_chunks_and_of_single_tokens() -> None:
    runner = TorchRunner.load(TINY, WEIGHTS, num_blocks=40, dtype="float32", attention_scores=True)
    one, masked = OneSequence(runner, TEXT[:50]), Masked(TINY, WEIGHTS)
    runner.logits(ragged([(TEXT[:20], 0, one.tables.blocks)], rows=[]))
    runner.logits(ragged([(TEXT[20:50], 20, one.tables.blocks)], rows=[]))
    masked.compute(TEXT[:50])
    one.drop(keep := random_keep(TINY, 64, seed=4))
    masked.kept = keep[:, :50].reshape(masked.kept.shape).copy()
    for token in TEXT[50:60]:
        one.step(token)
        masked.compute([token])
    expected = masked.scores.reshape(one.heads, -1)
    for head, scores in enumerate(one.scores()):
        for position, score in scores.items():
            assert score == pytest.approx(expected[head, position], rel=1e-4)


def test_scores_take_eight_bytes_per_slot_and_head() -> None:
    block = TorchRunner.load(TINY, WEIGHTS, num_blocks=1, dtype="float32").block_bytes
    scored = TorchRunner.load(TINY, WEIGHTS, num_blocks=1, dtype="float32", attention_scores=True)
    assert scored.block_bytes == block + 8 * TINY.layers * TINY.kv_heads * 16
    cache = scored._open()[1]
    assert cache.scores is not None
    assert cache.nbytes + cache.scores.nbytes == scored.block_bytes
    with pytest.raises(ValueError, match="load with attention_scores=True"):
        TorchRunner.load(TINY, WEIGHTS, num_blocks=1).page_scores(np.zeros(1, np.int32))


@pytest.mark.parametrize("seed", range(3))
def test_an_engine_with_a_policy_gives_the_same_tokens_in_any_company(seed: int) -> None:
    policy = Sinks(first=2, last=20)
    asked = [
        tuple(np.random.default_rng([seed, i]).integers(0, TINY.vocab_size, 30 + 9 * i)) for i in range(4)
    ]
    outcomes = []
    for sequences, preempt_after in ((8, None), (1, None), (8, 9)):
        runner = TorchRunner.load(TINY, WEIGHTS, num_blocks=40, dtype="float32")
        made = engine(runner, max_sequences=sequences, preempt_after_tokens=preempt_after, kv_policy=policy)
        outcomes.append(generate(made, asked, 20))
        assert made.stats()["kv_entries_dropped_total"] > 0
        made.close()
    assert outcomes[0].tokens == outcomes[1].tokens == outcomes[2].tokens
    assert outcomes[2].preemptions == 4
