"""Routed experts on the native kernels against PyTorch in float32, and what a batch may not change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from native_support import HERE, divergence, random_weights, tiny_spec, torch_runner
from pentad.execution.layers import Experts, FeedForward
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec import ModelSpec
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

MEDIAN_KL, MOST_KL = 0.002, 0.01
"""Nats. 8-bit activations cost 0.0002 to 0.0005 at the median; a wrong expert costs hundredths to tenths."""
INNER = FeedForward(width=64)
RECORDS = {
    "softmax": Experts(count=8, per_token=3, expert=INNER),
    "normalised": Experts(count=8, per_token=3, expert=INNER, normalised=True),
    "softmax of the chosen, biases, clamped": Experts(
        count=8,
        per_token=3,
        expert=FeedForward(width=64, bias=True, clamped=True),
        scores="softmax_chosen",
        router_bias="scores",
    ),
    "sigmoid, bias of the choice, groups": Experts(
        count=8,
        per_token=3,
        expert=INNER,
        scores="sigmoid",
        normalised=True,
        router_bias="choice",
        weight_scale=1.5,
        groups=4,
        chosen_groups=2,
        shared=FeedForward(width=96),
    ),
    "groups by the best": Experts(count=8, per_token=2, expert=INNER, groups=2, chosen_groups=1),
    "weighed shared": Experts(
        count=8, per_token=2, expert=INNER, shared=FeedForward(width=128), shared_gate=True
    ),
    "weighed inputs": Experts(
        count=8, per_token=1, expert=INNER, scores="sigmoid", weigh_inputs=True, shared=INNER
    ),
    "one by one": Experts(
        count=8, per_token=2, expert=INNER, scores="one_by_one", rivals_within=0.4, weight_scale=1.2
    ),
    "without a gate": Experts(
        count=8, per_token=3, expert=FeedForward(width=64, gated=False, activation="relu"), normalised=True
    ),
}
TOKENS = np.random.default_rng(9).integers(0, 203, 75).tolist()


def routed(record: Experts) -> ModelSpec:
    """A dense layer, then one with experts."""
    dense, block = tiny_spec().blocks
    blocks = (dense, dataclasses.replace(block, feed_forward=record))
    spec = tiny_spec()
    return dataclasses.replace(spec, stack=dataclasses.replace(spec.stack, blocks=blocks))


def load(spec: ModelSpec, kernels: str, threads: int = 1) -> NativeRunner:
    weights = random_weights(spec, "Q8_0")
    return NativeRunner.load(spec, weights, num_blocks=64, threads=threads, kernels=kernels)


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize("name", RECORDS)
def test_experts_give_the_reference_s_distribution(name: str, kernels: str) -> None:
    spec = routed(RECORDS[name])
    runner, reference = load(spec, kernels), torch_runner(spec, "Q8_0")
    blocks = [7, 3, 9, 5]
    chunk = ragged([(TOKENS[:40], 0, blocks)])
    mixed = ragged([(TOKENS[40:41], 40, blocks), (TOKENS[:5], 0, [11]), (TOKENS[20:60], 0, [1, 2, 4])])
    single = [ragged([(TOKENS[i : i + 1], i, blocks)]) for i in range(41, 61)]
    every = []
    for batches in ([chunk], [mixed], single):
        expected = np.concatenate([reference.logits(batch) for batch in batches])
        every.append(divergence(expected, np.concatenate([runner.logits(batch) for batch in batches])))
        assert expected.std() > 0.2, "near-constant logits would prove nothing"
        assert np.median(every[-1]) < MEDIAN_KL
    # A token whose last chosen expert is nearly as good as the next one may go to the other. One wrong expert
    # of eight would show in 12 to 37 of 100 tokens.
    assert (np.concatenate(every) > MOST_KL).mean() < 0.1
    runner.close()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", RECORDS)
def test_company_and_threads_change_no_bit(name: str, threads: int) -> None:
    kernels = next(set for set in HERE if set != "amx")
    spec = routed(RECORDS[name])
    alone, runner = load(spec, kernels), load(spec, kernels, threads)
    expected = [alone.logits(ragged([([token], 0, [0])]))[0] for token in TOKENS[:20]]
    for size in (1, 2, 4, 5, 20):
        batch = ragged([([token], 0, [i]) for i, token in enumerate(TOKENS[:size])])
        assert np.array_equal(runner.logits(batch), np.array(expected[:size]))
    alone.close()
    runner.close()


def test_only_experts_that_tokens_go_to_are_read() -> None:
    """What is counted as read is what one token's experts take, packed, and the shared ones."""
    record = dataclasses.replace(RECORDS["weighed shared"], count=16)
    spec = routed(record)
    runner = load(spec, HERE[0])
    runner.logits(ragged([(TOKENS[:1], 0, [0])]))
    numbers = 3 * spec.width * (record.per_token * record.expert.width + 128)
    assert runner.expert_bytes_read() == numbers * 34 // 32
    before = runner.expert_bytes_read()
    runner.logits(ragged([([TOKENS[0]], 0, [1]), ([TOKENS[0]], 0, [2])]))  # both go to the same ones
    assert runner.expert_bytes_read() == 2 * before
    runner.close()
