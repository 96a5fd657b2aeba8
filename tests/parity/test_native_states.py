"""Layers with states on the native kernels against PyTorch in float32, and what cuts may not change."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from native_support import HERE, RandomWeights, divergence, random_weights, tiny_spec
from pentad.errors import Incompatible
from pentad.execution.batch import RaggedBatch
from pentad.execution.layers import Block, Experts, FeedForward
from pentad.execution.mixers import Attention, Mixer, Recurrent, ShortConvolution
from pentad.execution.native.choice import unsupported_geometry
from pentad.execution.native.runner import NativeRunner
from pentad.execution.positions import Rope
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.runner import TorchRunner
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

MEAN_KL, MOST_KL = 0.004, 0.04
"""Nats. 8-bit activations and weights of steps cost 0.0003 to 0.002 on average; a wrong op costs tenths."""
ROW_BY_ROW = [name for name in HERE if name != "amx"]
"""Sets whose numbers for a token do not depend on how its prompt is cut."""
INNER = FeedForward(width=256)
ATTENTION = Attention(heads=4, kv_heads=2, head_dim=64, positions=Rope(dim=16), output_gate=True)
DELTA = Recurrent(rule="gated_delta", heads=6, value_dim=32, groups=3, key_dim=48, conv_bias=False)
MAMBA = Recurrent(rule="mamba2", heads=8, value_dim=48, groups=2, key_dim=64, norm_groups=2)
SHORT = ShortConvolution(channels=256)
FORMAT = "Q8_0"


def stacked(*layers: Mixer | Block | None) -> ModelSpec:
    """Layers with these mixers, or these blocks."""
    spec = tiny_spec()
    found = [
        one if isinstance(one, Block) else Block(mixer=one, feed_forward=INNER, norm=spec.blocks[0].norm)
        for one in layers
    ]
    return dataclasses.replace(spec, stack=dataclasses.replace(spec.stack, blocks=tuple(found)))


SPECS = {
    "gated delta": stacked(DELTA, ATTENTION, DELTA),
    "gated delta with a bias, one group": stacked(
        dataclasses.replace(DELTA, conv_bias=True, groups=1, heads=4, conv=3), ATTENTION
    ),
    "Mamba-2": stacked(MAMBA, MAMBA),
    "Mamba-2 with cut steps": stacked(
        ATTENTION, dataclasses.replace(MAMBA, step_limits=(0.4, 0.8), norm_groups=1, groups=1)
    ),
    "short convolution": stacked(SHORT, ATTENTION, SHORT),
    "short convolution with biases": stacked(dataclasses.replace(SHORT, bias=True, conv=4), ATTENTION),
    "one part each": stacked(
        Block(mixer=MAMBA, feed_forward=None),
        Block(mixer=None, feed_forward=FeedForward(width=128, gated=False, activation="relu_squared")),
        Block(mixer=ATTENTION, feed_forward=None),
        Block(
            mixer=None,
            feed_forward=Experts(
                count=4, per_token=2, expert=FeedForward(width=64, gated=False, activation="relu_squared")
            ),
        ),
    ),
    "scaled and parallel": stacked(
        Block(mixer=MAMBA, feed_forward=INNER, residual_scale=0.5),
        Block(mixer=DELTA, feed_forward=INNER, parallel=True),
        Block(mixer=SHORT, feed_forward=INNER, parallel=True, shared_norm=True),
        Block(mixer=DELTA, feed_forward=INNER, placement="both"),
    ),
    "experts behind it": stacked(
        Block(
            mixer=DELTA,
            feed_forward=Experts(
                count=4, per_token=2, expert=INNER, normalised=True, shared=INNER, shared_gate=True
            ),
        ),
        ATTENTION,
    ),
}
EACH = ("gated delta", "Mamba-2", "short convolution")
CASES = [(name, HERE[0]) for name in SPECS if HERE] + [
    (name, kernels) for kernels in HERE[1:] for name in EACH
]
"""Every spec on the fastest set, one of each kind on the others."""
TOKENS = np.random.default_rng(9).integers(0, 203, 90).tolist()
Part = tuple[list[int], int, int]
"""Tokens, how many of the text are in front of them, and the number of the sequence."""


def weights_of(spec: ModelSpec) -> RandomWeights:
    """Random ones, with heads that forget in 2 to 200 tokens."""
    found = random_weights(spec, FORMAT)
    for name, tensor in found.tensors.items():
        if name.endswith(".decay"):
            values = np.linspace(-5, -0.5, tensor.shape[0], dtype=np.float32)
            found.tensors[name] = dataclasses.replace(tensor, data=values.view(np.uint8))  # type: ignore[index]
    return found


def batch_of(*parts: Part, saves: list[tuple[int, int, int]] | None = None) -> RaggedBatch:
    """Sequence n has blocks from 6 n on and its state in row n + 1."""
    batch = ragged([(tokens, done, range(6 * n, 6 * n + 6)) for tokens, done, n in parts])
    rows = np.array([n + 1 for *_, n in parts], np.int32)
    found = None if saves is None else np.array(saves, np.int32)
    return dataclasses.replace(batch, state_rows=rows, state_saves=found)


def load(spec: ModelSpec, kernels: str, **options: Any) -> NativeRunner:
    settings = {"num_blocks": 64, "threads": 1, "kernels": kernels} | options
    return NativeRunner.load(spec, weights_of(spec), **settings)


@pytest.mark.parametrize(("name", "kernels"), CASES)
def test_a_layer_with_a_state_gives_the_reference_s_distribution(name: str, kernels: str) -> None:
    spec = SPECS[name]
    runner = load(spec, kernels)
    reference = TorchRunner.load(spec, weights_of(spec), num_blocks=64, dtype="float32")
    for batch in (
        batch_of((TOKENS[:40], 0, 0)),
        batch_of((TOKENS[40:41], 40, 0), (TOKENS[:5], 0, 1), (TOKENS[20:60], 0, 2)),
        batch_of((TOKENS[41:], 41, 0), (TOKENS[5:6], 5, 1)),
    ):
        expected, found = reference.logits(batch), runner.logits(batch)
        assert expected.std() > 0.2, "near-constant logits would prove nothing"
        apart = divergence(expected, found)
        assert apart.mean() < MEAN_KL
        assert (apart > MOST_KL).mean() < (0.05 if "expert" in name or "each" in name else 0.001)
    runner.close()


@pytest.mark.parametrize(("name", "kernels"), [case for case in CASES if case[1] != "amx"])
def test_cuts_company_and_threads_change_no_bit(name: str, kernels: str) -> None:
    one, runner = load(SPECS[name], kernels), load(SPECS[name], kernels, threads=3)
    expected = one.logits(batch_of((TOKENS, 0, 0)))
    parts = [
        runner.logits(batch_of((TOKENS[a:b], a, 3)))
        for a, b in itertools.pairwise([0, 1, 18, 19, 20, 45, 90])
    ]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    runner.logits(batch_of((TOKENS[:89], 0, 3)))
    together = [(TOKENS[89:], 89, 3), (TOKENS[:1], 0, 4), (TOKENS[5:25], 0, 5)]
    found = runner.logits(batch_of(*together))
    alone = [expected[89:], *(one.logits(batch_of(part)) for part in together[1:])]
    np.testing.assert_array_equal(found, np.concatenate(alone))
    for each in (one, runner):
        each.close()


@pytest.mark.parametrize("name", EACH)
def test_a_text_goes_on_from_what_was_saved_of_it(name: str) -> None:
    """Saved within a step and copied, a state is that of the text up to there; two texts go on from it."""
    runner = load(SPECS[name], ROW_BY_ROW[0], threads=2)
    expected = runner.logits(batch_of((TOKENS, 0, 0)))
    runner.logits(
        batch_of((TOKENS[:3], 0, 1), (TOKENS[:70], 0, 0), saves=[(1, 16, 20), (1, 48, 21), (1, 70, 22)])
    )
    for at, row in ((16, 20), (48, 21), (70, 22)):
        runner.copy_state(row, 1)
        np.testing.assert_array_equal(runner.logits(batch_of((TOKENS[at:], at, 0))), expected[at:])
    runner.copy_state(22, 1)
    runner.logits(batch_of((TOKENS[70:71], 70, 0), saves=[(0, 1, 23)]))
    runner.copy_state(23, 1)
    np.testing.assert_array_equal(runner.logits(batch_of((TOKENS[71:], 71, 0))), expected[71:])
    runner.close()


def test_layers_with_states_take_no_room_in_blocks() -> None:
    runner = load(SPECS["gated delta"], HERE[0])
    assert runner.block_bytes == 2 * 2 * 64 * 16 * 2
    runner.close()
    runner = load(SPECS["Mamba-2"], HERE[0], kv_dtype="int8")
    assert runner.block_bytes == 0
    runner.close()


@pytest.mark.parametrize(
    "batch",
    [
        dataclasses.replace(batch_of((TOKENS[:3], 0, 0)), state_rows=None),
        dataclasses.replace(batch_of((TOKENS[:3], 0, 0)), state_rows=np.array([-1], np.int32)),
        dataclasses.replace(
            batch_of((TOKENS[:3], 0, 0), (TOKENS[:3], 0, 1)), state_rows=np.array([2, 2], np.int32)
        ),
        batch_of((TOKENS[:3], 0, 0), saves=[(0, 4, 9)]),
        batch_of((TOKENS[:3], 0, 0), saves=[(0, 3, 9), (0, 2, 10)]),
        batch_of((TOKENS[:3], 0, 0), saves=[(0, 3, 1)]),
        batch_of((TOKENS[:3], 0, 0), saves=[(1, 1, 9)]),
        batch_of((TOKENS[:3], 0, 0), saves=[(0, 3, 1 << 20)]),
    ],
)
def test_a_row_that_cannot_be_is_refused(batch: RaggedBatch) -> None:
    runner = load(SPECS["short convolution"], HERE[0])
    with pytest.raises(ValueError, match="impossible row of a state"):
        runner.logits(batch)
    runner.close()


def test_states_of_no_row_are_not_copied() -> None:
    runner = load(SPECS["short convolution"], HERE[0])
    with pytest.raises(ValueError, match="there is no state -1 or 2"):
        runner.copy_state(-1, 2)
    runner.close()


def test_what_is_not_computed_is_named() -> None:
    odd = dataclasses.replace(DELTA, value_dim=24)
    assert unsupported_geometry(stacked(odd)) == "layer 0 has states of 48 by 24, no multiples of 16"
    narrow = dataclasses.replace(DELTA, value_dim=16)
    assert unsupported_geometry(stacked(narrow)) is not None
    assert "convolves 100 channels" in str(unsupported_geometry(stacked(ShortConvolution(channels=100))))
    with pytest.raises(Incompatible, match="attention is not counted"):
        load(SPECS["gated delta"], HERE[0], attention_scores=True)
