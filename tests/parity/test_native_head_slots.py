"""Native slots by head against plain masks in float32."""

from __future__ import annotations

import numpy as np
import pytest

from head_slot_support import Masked, OneSequence, random_keep
from native_support import HERE, random_weights, tiny_spec
from pentad.execution.native.runner import NativeRunner

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

SPEC = tiny_spec()
WEIGHTS = random_weights(SPEC, "Q8_0")
TEXT = np.random.default_rng(9).integers(0, SPEC.vocab_size, 180).tolist()


@pytest.mark.parametrize("name", HERE)
def test_heads_see_and_count_what_they_keep(name: str) -> None:
    runner = NativeRunner.load(
        SPEC, WEIGHTS, num_blocks=60, threads=1, kernels=name, key_centres=False, attention_scores=True
    )
    one, masked, whole = OneSequence(runner, TEXT[:150]), Masked(SPEC, WEIGHTS), Masked(SPEC, WEIGHTS)
    masked.compute(TEXT[:150])
    whole.compute(TEXT[:150])
    one.drop(random_keep(SPEC, one.tables.positions.shape[1], seed=6), elsewhere=True)
    kept = np.zeros((one.heads, 150), bool)
    for head, positions in enumerate(one.tables.positions):
        kept[head, positions[positions >= 0]] = True
    masked.kept = kept.reshape(masked.kept.shape)
    near, far = [], []
    for token in TEXT[150:]:
        found, expected, uncut = one.step(token), masked.compute([token]), whole.compute([token])
        near.append(float(np.abs(found - expected).mean() / expected.std()))
        far.append(float(np.abs(uncut - expected).mean() / expected.std()))
    assert max(near) < 0.05
    assert np.mean(far) > 5 * np.mean(near)
    expected_scores = masked.scores.reshape(one.heads, -1)
    for head, scores in enumerate(one.scores()):
        want = [expected_scores[head, position] for position in scores]
        np.testing.assert_allclose(list(scores.values()), want, rtol=0.1, atol=0.05)
