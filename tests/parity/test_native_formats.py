"""Native logits against PyTorch in float32 on random models: every format, every odd geometry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from native_support import HERE, divergence, random_weights, tiny_spec, torch_runner
from pentad.execution.batch import RaggedBatch
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.native.forms import FORMS
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec import ModelSpec, Rope, RopeScaling
from pentad.execution.weights import TensorFormat
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

MEAN_KL = 0.003
"""Nats. 8-bit activations cost 0.0002 to 0.0012 here; a wrong scale, row or sign costs tenths."""
MOST_KL = 0.02


def steps(spec: ModelSpec, prompt: int = 40) -> list[RaggedBatch]:
    """A long chunk, a single token, chunks beside single tokens, and twenty sequences at once."""
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, spec.vocab_size, prompt + 20).tolist()
    blocks = rng.permutation(40)[: (prompt + 20) // 16 + 1].tolist()
    more = list(range(41, 64))
    n = prompt
    singles = [([tokens[i]], 0, [more[4 + i]]) for i in range(17)]
    return [
        ragged([(tokens[:n], 0, blocks)]),
        ragged([(tokens[n : n + 1], n, blocks)]),
        ragged(
            [
                (tokens[n + 1 : n + 8], n + 1, blocks),
                (tokens[:1], 0, [more[0]]),
                (tokens[:20], 0, more[1:3]),
                (tokens[:3], 0, [more[3]]),
            ]
        ),
        ragged(
            [
                (tokens[n + 8 : n + 9], n + 8, blocks),
                (tokens[1:2], 1, [more[0]]),
                (tokens[20:21], 20, more[1:3]),
                *singles,
            ]
        ),
    ]


def assert_close(spec: ModelSpec, format: TensorFormat, kernels: str, prompt: int = 40) -> None:
    runner = NativeRunner.load(spec, random_weights(spec, format), num_blocks=64, threads=1, kernels=kernels)
    reference = torch_runner(spec, format)
    for batch in steps(spec, prompt):
        expected, found = reference.logits(batch), runner.logits(batch)
        assert expected.std() > 0.5  # the distributions say something
        apart = divergence(expected, found)
        assert apart.mean() < MEAN_KL
        assert apart.max() < MOST_KL
    runner.close()


INT4 = pytest.mark.row("cpu-intel-int4", "mechanism")
FORMATS_HERE = [pytest.param(format, marks=INT4 if FORMS[format].bits <= 5 else ()) for format in GEOMETRY]


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize("format", FORMATS_HERE)
def test_every_stored_format_gives_the_reference_s_distribution(format: TensorFormat, kernels: str) -> None:
    assert_close(tiny_spec(), format, kernels)


GEOMETRIES: dict[str, dict[str, Any]] = {
    "14 heads on 2": {"heads": 14, "kv_heads": 2, "width": 96, "ffn_width": 160, "vocab_size": 67},
    "head of 32": {"head_dim": 32, "heads": 8, "kv_heads": 8, "positions": Rope(dim=32)},
    "head of 96, one kv head": {"head_dim": 96, "kv_heads": 1, "positions": Rope(dim=96)},
    "head of 128, biases": {"head_dim": 128, "positions": Rope(dim=128), "biases": frozenset({"qkv"})},
    "head of 160": {"head_dim": 160, "heads": 2, "positions": Rope(dim=160)},
    "head of 256": {"head_dim": 256, "heads": 3, "kv_heads": 1, "positions": Rope(dim=256)},
    "window": {"window": 19},
    "wide window": {"window": 300},
    "norms of queries and keys": {"qk_norm": True},
    "norms of queries and keys, interleaved pairs, biases": {
        "qk_norm": True,
        "positions": Rope(dim=64, pairing="interleaved"),
        "biases": frozenset({"qkv"}),
    },
    "window in one layer": {"window": 19, "window_layers": (1,)},
    "interleaved pairs, biases": {
        "positions": Rope(dim=64, pairing="interleaved"),
        "biases": frozenset({"qkv"}),
    },
    "half of a head turned": {"positions": Rope(dim=32)},
    "half of a head turned, interleaved": {"positions": Rope(dim=32, pairing="interleaved")},
    "llama 3 scaling": {"positions": Rope(dim=64, base=500_000.0, scaling=RopeScaling(original_context=64))},
    "linear scaling": {"positions": Rope(dim=64, scaling=RopeScaling(kind="linear", factor=4))},
    "frequency factors": {"positions": Rope(dim=64, frequency_factors=tuple(np.linspace(1, 8, 32)))},
    "tied head": {"tied_head": True},
    "vocabulary of 5": {"vocab_size": 5},
    "smallest": {
        "width": 32,
        "heads": 1,
        "kv_heads": 1,
        "head_dim": 32,
        "positions": Rope(dim=32),
        "ffn_width": 32,
        "layers": 1,
        "vocab_size": 17,
    },
    "wide feed-forward": {"width": 224, "ffn_width": 4896, "layers": 1},
}


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_geometry_gives_the_reference_s_distribution(geometry: str, kernels: str) -> None:
    assert_close(tiny_spec(**GEOMETRIES[geometry]), "Q8_0", kernels)


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize("geometry", ["14 heads on 2", "head of 96, one kv head", "window", "wide window"])
def test_contexts_of_many_blocks_give_the_reference_s_distribution(geometry: str, kernels: str) -> None:
    assert_close(tiny_spec(**GEOMETRIES[geometry]), "Q8_0", kernels, prompt=400)
