"""Adapters beside packed weights: as PyTorch adds them, two in one batch as alone, and none left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from native_support import HERE, divergence, random_weights, tiny_spec
from pentad.errors import BadModelFile
from pentad.execution.adapters import ADAPTED, Adapter, LowRank, adapters_of
from pentad.execution.batch import RaggedBatch
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec import ModelSpec, Rope
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

SIZES = {"width": 96, "heads": 6, "kv_heads": 2, "head_dim": 32, "ffn_width": 160, "vocab_size": 131}
SPEC = tiny_spec(**SIZES, layers=3, positions=Rope(dim=32, pairing="interleaved"))
WEIGHTS = random_weights(SPEC, "Q8_0")
TOKENS = np.random.default_rng(9).integers(0, SPEC.vocab_size, 61).tolist()
PARTS: Sequence[tuple[list[int], int, list[int]]] = [
    (TOKENS[:40], 0, [0, 1, 2]),
    (TOKENS[3:20], 0, [3, 4]),
    (TOKENS[:1], 0, [5]),
    (TOKENS[5:45], 0, [6, 7, 8]),
    (TOKENS[:22], 0, [9, 10]),
]
KEYS = ("a", "b", "a", "", "b")


def adapter(
    key: str, seed: int, *, rank: int = 5, spec: ModelSpec = SPEC, only: Sequence[str] = ADAPTED
) -> Adapter:
    dice = np.random.default_rng(seed)
    pairs = {}
    for name, (rows, columns) in ((n, s) for n, s in spec.tensors().items() if n.rpartition(".")[2] in only):
        if name.startswith("layers."):
            down = dice.standard_normal((rank, columns), np.float32) * columns**-0.5
            pairs[name] = LowRank(down, dice.standard_normal((rows, rank), np.float32) * 0.2)
    return Adapter(key=key, pairs=pairs, stored_order=True)


A, B = adapter("a", 1), adapter("b", 2, rank=16)


def loaded(name: str, *, spec: ModelSpec = SPEC, threads: int = 1, weights: Any = WEIGHTS) -> NativeRunner:
    runner = NativeRunner.load(spec, weights, num_blocks=64, threads=threads, kernels=name)
    room = adapters_of(runner)
    assert room is not None
    for one in (A, B) if spec is SPEC else ():
        room.put(one)
    return runner


def batch_of(*places: int) -> RaggedBatch:
    keys = tuple(KEYS[i] for i in places)
    return replace(ragged([PARTS[i] for i in places]), adapters=keys if any(keys) else None)


@pytest.mark.row("het-adapter", "mechanism")
@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("threads", [1, 2])
def test_two_adapters_and_none_in_one_batch_get_what_each_gets_alone(name: str, threads: int) -> None:
    runner = loaded(name, threads=threads)
    together = runner.logits(batch_of(*range(len(PARTS))))
    alone = np.concatenate([runner.logits(batch_of(i)) for i in range(len(PARTS))])
    if (
        name == "amx"
    ):  # there the prompt of the one without an adapter is computed in bf16, which rounds by tiles
        assert divergence(alone, together).max() < 1e-4
    else:
        np.testing.assert_array_equal(together, alone)
    runner.close()


@pytest.mark.parametrize("name", HERE)
def test_the_number_of_threads_changes_nothing(name: str) -> None:
    one, two = loaded(name), loaded(name, threads=2)
    np.testing.assert_array_equal(one.logits(batch_of(0, 1)), two.logits(batch_of(0, 1)))
    np.testing.assert_array_equal(one.logits(batch_of(2)), two.logits(batch_of(2)))
    one.close(), two.close()


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("only", [*ADAPTED, "all"])
def test_an_adapter_adds_what_pytorch_adds(name: str, only: str) -> None:
    pytest.importorskip("torch")
    from pentad.execution.torch.runner import TorchRunner

    made = adapter("x", 3, rank=8, only=ADAPTED if only == "all" else (only,))
    # Adds zeros: rows with an adapter read 8-bit codes, which without one may be computed in bfloat16.
    pairs = {key: LowRank(pair.down, np.zeros_like(pair.up)) for key, pair in made.pairs.items()}
    silent = replace(made, key="silent", pairs=pairs)
    native = loaded(name)
    reference = TorchRunner.load(SPEC, WEIGHTS, num_blocks=64, dtype="float32", adapters=True)
    found = []
    for runner in (native, reference):
        room = adapters_of(runner)
        assert room is not None
        room.put(silent)
        plain = runner.logits(replace(ragged(PARTS[:2]), adapters=("silent", "silent")))
        room.put(made)
        found.append((plain, runner.logits(replace(ragged(PARTS[:2]), adapters=("x", "x")))))
        runner.close()
    (plain, ours), (exact_plain, exact) = found
    assert divergence(exact_plain, exact).mean() > 0.001, "it does something"
    base = divergence(exact_plain, plain).mean()
    assert divergence(exact, ours).mean() < 2 * base + 1e-5, "no further from float32 than the base is"


def test_a_step_without_adapters_behind_one_with_them_is_as_before() -> None:
    runner = loaded(HERE[0])
    before = runner.logits(ragged(PARTS))
    runner.logits(batch_of(0, 1))
    np.testing.assert_array_equal(runner.logits(ragged(PARTS)), before)
    runner.close()


def test_an_adapter_that_is_dropped_and_put_again_is_the_same() -> None:
    runner = loaded(HERE[0])
    room = adapters_of(runner)
    assert room is not None
    before = runner.logits(batch_of(0))
    room.drop("a")
    assert set(room.keys()) == {"b"}
    room.put(A)
    np.testing.assert_array_equal(runner.logits(batch_of(0)), before)
    runner.close()


def test_an_adapter_of_another_size_is_refused() -> None:
    runner = loaded(HERE[0])
    room = adapters_of(runner)
    assert room is not None
    wrong = {"layers.0.q": LowRank(np.zeros((2, 64), np.float32), np.zeros((192, 2), np.float32))}
    with pytest.raises(BadModelFile, match=r"does not fit 'layers.0.q' of 'tiny'"):
        room.put(Adapter(key="w", pairs=wrong, stored_order=False))
    runner.close()
