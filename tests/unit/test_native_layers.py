"""Layers of the native program: norms of heads, windows by layer; and the list of ops that is run."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from native_support import HERE, RandomWeights, divergence, random_weights, tiny_spec
from pentad.execution.native.library import open_library
from pentad.execution.native.runner import NativeRunner, packed_program
from pentad.execution.native.structs import ACTIVATIONS, COLLECTIVES, OPS, TENSORS, ProgramOp
from pentad.execution.program import step_program
from pentad.execution.spec import Rope
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

SIZES = {"width": 96, "heads": 6, "kv_heads": 2, "head_dim": 32, "ffn_width": 160, "vocab_size": 131}
SPEC = tiny_spec(**SIZES, layers=3, positions=Rope(dim=32), qk_norm=True, window=19, window_layers=(0, 2))
WEIGHTS = random_weights(SPEC, "Q8_0")
WEIGHTS_OF_ONE = RandomWeights(
    {k: v for k, v in WEIGHTS.tensors.items() if not k.startswith(("layers.1", "layers.2"))}
)
TOKENS = np.random.default_rng(9).integers(0, SPEC.vocab_size, 61).tolist()
ROW_BY_ROW = [name for name in HERE if name != "amx"]
"""Sets whose numbers for a token do not depend on how its prompt is cut."""


def load(name: str, weights: RandomWeights = WEIGHTS, interleaved: bool = False) -> NativeRunner:
    rope = Rope(dim=32, pairing="interleaved" if interleaved else "half")
    return NativeRunner.load(
        SPEC.with_attention(positions=rope), weights, num_blocks=64, threads=1, kernels=name
    )


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_chunks_and_cached_tokens_get_the_logits_of_the_whole(name: str) -> None:
    runner = load(name)
    expected = runner.logits(ragged([(TOKENS, 0, [0, 1, 2, 3])]))
    cuts = [0, 1, 18, 19, 20, 21, 45, 61]
    parts = [runner.logits(ragged([(TOKENS[a:b], a, [9, 4, 7, 30])])) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    runner.close()


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_a_sequence_gets_in_a_batch_what_it_gets_alone(name: str) -> None:
    runner = load(name)
    parts = [
        (TOKENS[:30], 0, [0, 1]),
        (TOKENS[30:31], 30, [2, 3]),
        (TOKENS[:1], 0, [4]),
        (TOKENS[5:25], 0, [5, 6]),
    ]
    runner.logits(ragged([(TOKENS[:30], 0, [2, 3])]))
    alone = np.concatenate([runner.logits(ragged([part])) for part in parts])
    np.testing.assert_array_equal(runner.logits(ragged(parts)), alone)
    runner.close()


@pytest.mark.parametrize("name", HERE)
def test_the_size_of_heads_before_their_norm_changes_nothing(name: str) -> None:
    """Behind their norms, queries and keys of four times the size are what they were, to rounding."""
    scaled = {}
    for key, tensor in WEIGHTS.tensors.items():
        if key.endswith((".q", ".k")):
            data = tensor.data.copy().reshape(-1, 34)
            data[:, :2] = (data[:, :2].copy().view(np.float16) * np.float16(4)).view(np.uint8)
            tensor = dataclasses.replace(tensor, data=data.reshape(-1))
        scaled[key] = tensor
    plain, longer = load(name), load(name, RandomWeights(scaled))
    batch = ragged([(TOKENS[:40], 0, [0, 1, 2])])
    expected, found = plain.logits(batch), longer.logits(batch)
    assert divergence(expected, found).max() < 0.003
    plain.close()
    longer.close()


@pytest.mark.parametrize("name", HERE)
def test_norms_of_interleaved_heads_are_brought_into_halves_with_their_rows(name: str) -> None:
    order = np.concatenate((np.arange(0, 32, 2), np.arange(1, 32, 2)))
    halves = {}
    for key, tensor in WEIGHTS.tensors.items():
        part = key.rpartition(".")[2]
        if part in ("q", "k"):
            rows = tensor.data.reshape(tensor.shape[0] // 32, 32, -1)
            tensor = dataclasses.replace(tensor, data=np.ascontiguousarray(rows[:, order]).reshape(-1))
        elif part in ("q_norm", "k_norm"):
            tensor = dataclasses.replace(tensor, data=tensor.data.view(np.float32)[order].view(np.uint8))
        halves[key] = tensor
    batch = ragged([(TOKENS[:40], 0, [0, 1, 2])])
    interleaved, apart = load(name, interleaved=True), load(name, RandomWeights(halves))
    np.testing.assert_array_equal(interleaved.logits(batch), apart.logits(batch))
    interleaved.close()
    apart.close()


def test_the_program_of_a_decoder_marks_where_ranks_would_meet() -> None:
    ops = step_program(SPEC)
    assert (ops[0].kind, ops[-1].kind) == ("embed", "head")
    assert Counter(op.kind for op in ops)["norm"] == 2 * SPEC.layers
    assert {op.kind: op.collective for op in ops if op.collective} == {
        "out": "sum",
        "down": "sum",
        "head": "gather",
    }
    packed = [(op.kind, op.layer, op.tensor, op.collective) for op in packed_program(SPEC)]
    assert packed[1] == (OPS["norm"], 0, TENSORS["attn_norm"], 0)
    assert packed[-1] == (OPS["head"], -1, TENSORS["final_norm"], COLLECTIVES["gather"])


def test_a_program_without_its_tensors_never_runs() -> None:
    """A model of one gated layer is not ready for a program that normalises what its parts give."""
    other = dataclasses.replace(SPEC, stack=dataclasses.replace(SPEC.stack, blocks=SPEC.blocks[:1]))
    runner = NativeRunner.load(other, WEIGHTS_OF_ONE, num_blocks=4, threads=1, kernels=HERE[-1])
    functions, op = runner.library.functions, ProgramOp(OPS["add"], 0, TENSORS["attn_out_norm"], 0)
    assert functions.pentad_set_program(runner._open(), ctypes.addressof(op), 1) == 0
    assert functions.pentad_ready(runner._open()) == -1
    runner.close()


@pytest.mark.parametrize(
    "op",
    [
        ProgramOp(len(OPS), 0, 0, 0),
        ProgramOp(-1, 0, 0, 0),
        ProgramOp(OPS["qkv"], SPEC.layers, 0, 0),
        ProgramOp(OPS["qkv"], -1, 0, 0),
        ProgramOp(OPS["embed"], 0, 0, 0),
        ProgramOp(OPS["norm"], 0, TENSORS["down"], 0),
        ProgramOp(OPS["renorm"], 0, 0, 0),
        ProgramOp(OPS["qkv"], 0, 0, 0, rotation=1),
        ProgramOp(OPS["attend"], 0, 0, 0, window=-1),
        ProgramOp(OPS["up"], 0, 0, 0, activation=len(ACTIVATIONS)),
    ],
)
def test_an_op_that_the_kernels_lack_is_refused(op: ProgramOp) -> None:
    runner = load(HERE[-1])
    functions = open_library(HERE[-1]).functions
    before = runner.logits(ragged([(TOKENS[:5], 0, [0])]))
    assert functions.pentad_set_program(runner._open(), ctypes.addressof(op), 1) == -1
    np.testing.assert_array_equal(runner.logits(ragged([(TOKENS[:5], 0, [0])])), before)
    runner.close()
