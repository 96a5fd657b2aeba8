"""What the kernels tell of their time and of the machine's limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from native_support import HERE, random_weights, tiny_spec
from pentad.execution.batch import SampleRow
from pentad.execution.native import limits
from pentad.execution.native.library import open_library
from pentad.execution.native.runner import NativeRunner
from pentad.execution.runner import PhasedRunner
from pentad.execution.spec import Head
from pentad.testing.runners import ToyRunner
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

SPEC = tiny_spec()
WEIGHTS = random_weights(SPEC, "Q8_0")


@pytest.mark.parametrize("name", HERE)
def test_steps_are_timed_by_phase_while_asked_for_and_only_then(name: str) -> None:
    runner = NativeRunner.load(SPEC, WEIGHTS, num_blocks=8, threads=2, kernels=name)
    batch, rows = ragged([([1, 2, 3], 0, [0])], rows=[2]), [SampleRow(temperature=0)]
    runner.step(batch, rows)
    assert set(runner.phase_seconds().values()) == {0.0}
    runner.set_timed(True)
    token = runner.step(batch, rows)
    timed = runner.phase_seconds()
    assert list(timed) == ["embed", "qkv", "attention", "output", "gate_up", "down", "head"]
    assert all(seconds > 0 for seconds in timed.values())
    runner.set_timed(False)
    assert runner.step(batch, rows) == token
    assert runner.phase_seconds() == timed
    runner.close()


def test_only_runners_that_tell_their_phases_count_as_such() -> None:
    runner = NativeRunner.load(SPEC, WEIGHTS, num_blocks=8, threads=1, kernels="portable")
    assert isinstance(runner, PhasedRunner)
    assert not isinstance(ToyRunner(), PhasedRunner)
    runner.close()


def test_an_untied_embedding_is_not_read_by_a_step_but_a_tied_one_is() -> None:
    untied = NativeRunner.load(SPEC, WEIGHTS, num_blocks=8, threads=1, kernels="portable")
    rows = -(-SPEC.vocab_size // 16) * 16
    assert untied.weight_bytes - untied.step_weight_bytes == rows * SPEC.width * 34 // 32
    tied_spec = dataclasses.replace(SPEC, head=Head(tied=True))
    tied = NativeRunner.load(
        tied_spec, random_weights(tied_spec, "Q8_0"), num_blocks=8, threads=1, kernels="portable"
    )
    assert tied.step_weight_bytes == tied.weight_bytes
    untied.close()
    tied.close()


@pytest.mark.parametrize("name", HERE)
def test_limits_are_measured_with_the_instructions_of_the_build(name: str) -> None:
    runner = NativeRunner.load(SPEC, WEIGHTS, num_blocks=8, threads=1, kernels=name)
    library = open_library(name)
    assert limits.read_bytes_per_s(library, np.ones(1 << 20, np.uint8), 1) > 1e8
    found = limits.operations_per_s(library, 1)
    assert all(rate > 1e9 for rate in found.values())
    assert ("int8" in found) == (name not in ("portable",))
    assert ("bf16" in found) == (name == "amx")
    runner.close()
