"""Every dense block that the records can describe, on the native kernels against PyTorch in float32.

The kernels compute with 8-bit activations and bfloat16 keys and values, so distributions are compared. What
a batch, a cache or a cut may not change is compared bit by bit.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from block_specs import FAMILIES, SPECS
from native_support import HERE, RandomWeights, divergence, random_weights, tiny_spec, torch_runner
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec import ModelSpec
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

MEAN_KL, MOST_KL = 0.004, 0.03
"""Nats. 8-bit activations cost 0.0002 to 0.002; a wrong op costs tenths."""
FELT = [
    *("layer norms", "norms with an offset", "norm of embeddings"),
    *("gated relu", "gated gelu", "parallel with two norms", "scaled residuals", "capped logits"),
    *("norms of each head", "layer norms of each head", "norms of heads behind the rotation"),
    *("cut queries, keys and values", "chunks", "queries that grow in steps", "queries that grow smoothly"),
    *("scaled scores", "capped scores", "sinks", "ALiBi", "gated attention", "no positions"),
    *("another base in the second layer", "no rotation in the second layer", "YaRN with its magnitude"),
    "dual chunks",
]
SHARED = (
    "norms over all heads",
    "cut behind biases, in front of norms over all heads",
    "Llama 4, dense",
    "gated attention beside its feed-forward",
    "Gemma 2",
    "BLOOM",
    "OLMo 2",
    "dual chunks, biases, YaRN with its magnitude",
)
"""Specs whose ops, between them, hand over from thread to thread in every way."""
ROW_BY_ROW = [name for name in HERE if name != "amx"]
"""Sets whose numbers for a token do not depend on how its prompt is cut."""
CASES = [(name, HERE[0]) for name in SPECS if HERE] + [
    (name, kernels) for kernels in HERE[1:] for name in FAMILIES
]
"""Every spec on the fastest set, the blocks of families, which have most features, on the others."""
TOKENS = np.random.default_rng(9).integers(0, 203, 75).tolist()


def load(spec: ModelSpec, kernels: str, **options: Any) -> NativeRunner:
    settings = {"num_blocks": 64, "threads": 1, "kernels": kernels} | options
    return NativeRunner.load(spec, random_weights(spec, "Q8_0"), **settings)


@pytest.mark.parametrize(("name", "kernels"), CASES)
def test_a_block_gives_the_reference_s_distribution(name: str, kernels: str) -> None:
    spec = SPECS[name]
    runner, reference = load(spec, kernels), torch_runner(spec, "Q8_0")
    for batch in (
        ragged([(TOKENS[:40], 0, [7, 3, 9])]),
        ragged([(TOKENS[40:41], 40, [7, 3, 9]), (TOKENS[:5], 0, [11]), (TOKENS[20:60], 0, [1, 2, 4])]),
        ragged([(TOKENS[41:42], 41, [7, 3, 9])]),
    ):
        expected, found = reference.logits(batch), runner.logits(batch)
        assert expected.std() > 0.2, "near-constant logits would prove nothing"
        apart = divergence(expected, found)
        assert apart.mean() < MEAN_KL
        assert apart.max() < MOST_KL
    runner.close()


@pytest.mark.parametrize("name", FELT)
def test_a_block_without_its_feature_would_be_found_out(name: str) -> None:
    """On the same weights, the plain block gives other distributions than the kernels do."""
    weights = random_weights(SPECS[name], "Q8_0")
    plain = tiny_spec(biases=frozenset({"qkv"})) if "layers.0.q.bias" in weights.tensors else tiny_spec()
    kept = RandomWeights({key: weights.tensors[key] for key in plain.tensors()})
    batch = ragged([(TOKENS[:40], 0, [7, 3, 9])])
    runner = NativeRunner.load(plain, kept, num_blocks=64, threads=1, kernels=HERE[0])
    apart = divergence(torch_runner(SPECS[name], "Q8_0").logits(batch), runner.logits(batch))
    assert apart.mean() > 2 * MEAN_KL
    runner.close()


@pytest.mark.parametrize("name", SPECS)
def test_cuts_and_company_change_no_bit(name: str) -> None:
    runner = load(SPECS[name], ROW_BY_ROW[0])
    whole = runner.logits(ragged([(TOKENS, 0, [0, 1, 2, 3, 4])]))
    cuts = [0, 1, 18, 19, 20, 45, 75]
    table = [9, 4, 7, 30, 21]
    parts = [runner.logits(ragged([(TOKENS[a:b], a, table)])) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    together = [(TOKENS[74:], 74, table), (TOKENS[:1], 0, [50]), (TOKENS[5:25], 0, [51, 52])]
    alone = np.concatenate([runner.logits(ragged([part])) for part in together])
    np.testing.assert_array_equal(runner.logits(ragged(together)), alone)
    runner.close()


@pytest.mark.parametrize("name", SHARED)
def test_two_threads_and_keys_in_codes_compute_what_one_thread_does_with_whole_keys(name: str) -> None:
    one = load(SPECS[name], HERE[0])
    two, coded = load(SPECS[name], HERE[0], threads=2), load(SPECS[name], HERE[0], kv_dtype="int8")
    for batch in (ragged([(TOKENS[:40], 0, [7, 3, 9])]), ragged([(TOKENS[40:41], 40, [7, 3, 9])])):
        expected = one.logits(batch)
        np.testing.assert_array_equal(two.logits(batch), expected)
        assert divergence(expected, coded.logits(batch)).mean() < MEAN_KL
    for runner in (one, two, coded):
        runner.close()
