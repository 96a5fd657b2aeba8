"""Blocks of models whose weights nobody has: PyTorch against references that are written out here.

Tiny random weights; every logit of a text is computed without a cache, token by token, in float64.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from native_support import random_weights
from pentad.errors import Incompatible
from pentad.execution.checks import check_window
from pentad.execution.layers import Block
from pentad.execution.mixers import Attention, Norm
from pentad.execution.native.choice import unsupported_geometry
from pentad.execution.positions import Learned, ProjectedDistances, Rope
from pentad.execution.quant import dequantize
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.branches import TorchBranches
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.uniform import uniform_spec
from ragged_batches import check_cut_sequences, check_mixed_step

V, E, L, H, D, F = 90, 64, 3, 4, 16, 96
TOLERANCE = 1e-3
LAYER = Norm(kind="layer")
EVERY = frozenset({"qkv", "out", "ffn"})
Arrays = dict[str, np.ndarray]


def tiny(**parts: object) -> ModelSpec:
    sizes = {"name": "tiny", "family": "tiny", "vocab_size": V, "layers": L, "width": E, "heads": H}
    shape = {"kv_heads": H, "head_dim": D, "ffn_width": F, "context_length": 256, "gated": False}
    return uniform_spec(**(sizes | shape | {"activation": "gelu_tanh", "norm": LAYER} | parts))  # type: ignore[arg-type]


def gpt3() -> ModelSpec:
    """A band of 20 tokens in every other layer."""
    return tiny(positions=Learned(max_positions=256), biases=EVERY, window=20, window_layers=(1,))


def gopher() -> ModelSpec:
    return tiny(positions=ProjectedDistances(), norm=Norm(), biases=frozenset({"ffn"}))


def pangu() -> ModelSpec:
    """The last layer asks by positions, of a stream that is normed in front of it; no norm is behind it."""
    spec = tiny(positions=Learned(max_positions=256), biases=EVERY)
    last = spec.blocks[-1]
    assert isinstance(last.mixer, Attention)
    query = dataclasses.replace(
        last, entry_norm=True, mixer=dataclasses.replace(last.mixer, position_queries=256)
    )
    stack = dataclasses.replace(spec.stack, blocks=(*spec.blocks[:-1], query), final_norm=None)
    return dataclasses.replace(spec, stack=stack)


def palm() -> ModelSpec:
    return tiny(
        positions=Rope(dim=D),
        norm=Norm(kind="layer", bias=False),
        kv_heads=1,
        gated=True,
        activation="silu",
        parallel_block=True,
    )


SPECS = {"gpt3": gpt3, "gopher": gopher, "pangu": pangu, "palm": palm}
ROWS = {
    "gpt3": [("m-gpt3", 2)],
    "gopher": [("m-gopher", 1)],
    "pangu": [("m-pangu-alpha", 1)],
    "palm": [("m-palm", 1)],
}


def _weights(spec: ModelSpec) -> Arrays:
    source = random_weights(spec, "F32")
    return {name: dequantize(source.tensor(name)).astype(np.float64) for name in source.names()}


def _norm(w: Arrays, name: str, x: np.ndarray, record: Norm) -> np.ndarray:
    if record.kind == "layer":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + record.eps) * w[name]
    return x + w.get(name + ".bias", 0.0)


def _times(w: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[name].T + w.get(name + ".bias", 0.0)


def _softmax(scores: np.ndarray) -> np.ndarray:
    found = np.exp(scores - scores.max())
    return found / found.sum()


def _turned(x: np.ndarray, at: int) -> np.ndarray:
    """The two halves of [D] as pairs, turned by RoPE."""
    half = len(x) // 2
    angles = at * 10_000.0 ** (-np.arange(half) / half)
    a, b = x[:half], x[half:]
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)))


def _sinusoid(distance: int) -> np.ndarray:
    angles = [distance / 10_000.0 ** (2 * i / E) for i in range(E // 2)]
    return np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def _attended(w: Arrays, i: int, mixer: Attention, x: np.ndarray, both_ways: bool = False) -> np.ndarray:
    """[T, H D]: pair by pair of tokens, head by head."""
    at = f"layers.{i}."
    asking = x if mixer.position_queries is None else w[at + "position_queries"][: len(x)]
    q, k, v = (_times(w, at + n, s).reshape(len(x), -1, D) for n, s in (("q", asking), ("k", x), ("v", x)))
    out = np.zeros((len(x), mixer.heads, D))
    for t in range(len(x)):
        first = 0 if mixer.window is None else max(0, t + 1 - mixer.window)
        seen = range(len(x)) if both_ways else range(first, t + 1)
        for h in range(mixer.heads):
            g = h * mixer.kv_heads // mixer.heads
            scores = np.array([_score(w, at, mixer, h, q[t, h], k[s, g], t, s) for s in seen])
            out[t, h] = _softmax(scores * D**-0.5) @ v[list(seen), g]
    return out.reshape(len(x), -1)


def _score(
    w: Arrays, at: str, mixer: Attention, h: int, q: np.ndarray, k: np.ndarray, t: int, s: int
) -> float:
    if isinstance(mixer.positions, Rope):
        return float(_turned(q, t) @ _turned(k, s))
    if not isinstance(mixer.positions, ProjectedDistances):
        return float(q @ k)
    rows = slice(h * D, h * D + D)
    far = w[at + "distance"][rows] @ _sinusoid(t - s)
    return float((q + w[at + "content_shift"][rows]) @ k + (q + w[at + "distance_shift"][rows]) @ far)


def _fed(w: Arrays, i: int, block: Block, x: np.ndarray) -> np.ndarray:
    at, up = f"layers.{i}.", _times(w, f"layers.{i}.up", x)
    if f"{at}gate" in w:
        gate = _times(w, at + "gate", x)
        return _times(w, at + "down", gate / (1 + np.exp(-gate)) * up)
    cubic = math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)
    return _times(w, at + "down", 0.5 * up * (1 + np.tanh(cubic)))


def _layers(w: Arrays, blocks: tuple[Block, ...], x: np.ndarray, both_ways: bool = False) -> np.ndarray:
    for i, block in enumerate(blocks):
        assert isinstance(block.mixer, Attention)
        at = f"layers.{i}."
        if block.entry_norm:
            x = _norm(w, at + "entry_norm", x, block.norm)
        read = _norm(w, at + "attn_norm", x, block.norm)
        mixed = x + _times(w, at + "o", _attended(w, i, block.mixer, read, both_ways))
        read = read if block.parallel else _norm(w, at + "ffn_norm", mixed, block.norm)
        x = mixed + _fed(w, i, block, read)
    return x


def reference(spec: ModelSpec, w: Arrays, tokens: list[int]) -> np.ndarray:
    x = w["embed"][tokens]
    if spec.learned is not None:
        x = x + w["positions"][: len(tokens)]
    x = _layers(w, spec.blocks, x)
    if spec.stack.final_norm is not None:
        x = _norm(w, "final_norm", x, spec.stack.final_norm)
    return x @ w["embed"].T


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.row(row, "mechanism", claims=(claim,)) for row, claim in ROWS[name]]
        )
        for name in SPECS
    ],
)
def test_a_block_equals_its_written_out_reference_whole_in_chunks_cached_and_batched(name: str) -> None:
    spec = SPECS[name]()
    w, runner = (
        _weights(spec),
        TorchRunner.load(spec, random_weights(spec, "F32"), num_blocks=64, dtype="float32"),
    )
    known: dict[tuple[int, ...], np.ndarray] = {}

    def expected(tokens: list[int]) -> np.ndarray:
        return known.setdefault(tuple(tokens), reference(spec, w, tokens))

    check_cut_sequences(runner.logits, expected, V, TOLERANCE)
    check_mixed_step(runner.logits, expected, V, TOLERANCE)


@pytest.mark.parametrize(
    ("spec", "part"),
    [(gopher(), "layer 0 projects distances"), (pangu(), "layer 2 makes queries of positions")],
)
def test_the_native_kernels_refuse_what_they_do_not_compute(spec: ModelSpec, part: str) -> None:
    assert unsupported_geometry(spec) == part


def test_drafted_trees_have_no_distances_to_project() -> None:
    with pytest.raises(Incompatible, match="trees of drafts have no place"):
        check_window(gopher())


def ernie() -> ModelSpec:
    """A trunk, a branch that reads both ways and one that writes, both narrower than it."""
    trunk = tiny(positions=Learned(max_positions=256), biases=EVERY)
    narrow = tiny(positions=None, biases=EVERY, width=32, heads=2, kv_heads=2, layers=2, ffn_width=64)
    stem = ((32, E),)
    both = dataclasses.replace(narrow.stack, causal=False, stem=stem)
    writing = dataclasses.replace(narrow.stack, stem=stem)
    return dataclasses.replace(trunk, branches=(("understanding", both), ("generation", writing)))


@pytest.mark.row("m-ernie3", "mechanism", claims=(1,))
def test_one_pass_of_the_trunk_feeds_both_branches() -> None:
    spec = ernie()
    model, w = TorchBranches(spec, random_weights(spec, "F32")), _weights(spec)
    texts = [np.random.default_rng(n).integers(0, V, n).tolist() for n in (9, 1, 30)]
    found = model.states(texts)
    assert model.trunk_passes == 1
    for name, stack in spec.branches:
        mine = {
            n.removeprefix(f"branches.{name}."): a for n, a in w.items() if n.startswith(f"branches.{name}.")
        }
        for text, got in zip(texts, found[name], strict=True):
            x = _layers(w, spec.blocks, w["embed"][text] + w["positions"][: len(text)])
            x = _norm(w, "final_norm", x, LAYER) @ mine["stem.0"].T + mine["stem.0.bias"]
            x = _layers(mine, stack.blocks, x, both_ways=not stack.causal)
            np.testing.assert_allclose(got, _norm(mine, "final_norm", x, LAYER), atol=TOLERANCE)


@pytest.mark.row("m-ernie3", "mechanism", claims=(2,))
def test_what_comes_later_reaches_the_branch_that_understands_alone() -> None:
    spec = ernie()
    model, text = TorchBranches(spec, random_weights(spec, "F32")), list(range(20))
    one, other = (model.states([[*text, last]]) for last in (40, 41))
    writes = [found["generation"][0][:-1] for found in (one, other)]
    reads = [found["understanding"][0][:-1] for found in (one, other)]
    np.testing.assert_array_equal(*writes)
    assert np.abs(reads[0] - reads[1]).max() > 0.01
