"""Latent attention on the native kernels: DeepSeek against the reference code, its cache, what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import test_latent_attention as published
import torch
from torch.utils.flop_counter import FlopCounterMode

from block_specs import LATENT, latent
from evidence.plugin import Measure
from expert_models import TinyModel, V, open_folder, open_gguf, reference, save_folder, save_gguf
from native_support import HERE, ROW_BY_ROW, divergence, random_weights, tiny_spec
from pentad.errors import Incompatible
from pentad.execution.layers import Experts, FeedForward
from pentad.execution.mixers import LatentAttention
from pentad.execution.native.runner import NativeRunner
from pentad.execution.positions import Rope
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.runner import TorchRunner
from ragged_batches import ragged

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

MEDIAN_KL = 0.02
"""Nats. The matrices of these models are rounded to 8 bits; a wrong mapping is far above."""
SIZES = {
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 32,
    "v_head_dim": 32,
    "initializer_range": 0.15,
}
METADATA = {
    "attention.key_length_mla": 64,
    "attention.value_length_mla": 32,
    "attention.kv_lora_rank": 64,
    "rope.dimension_count": 32,
}
TOKENS = np.random.default_rng(9).integers(0, V, 75).tolist()


def wide(name: str) -> TinyModel:
    """The same form in sizes that kernels compute, in groups of 32."""
    tiny = published.CASES[name]
    ranked = "q_lora_rank" in tiny.sizes
    sizes = {**tiny.sizes, **SIZES, **({"q_lora_rank": 96} if ranked else {})}
    metadata = {**tiny.metadata, **METADATA, **({"attention.q_lora_rank": 96} if ranked else {})}
    return dataclasses.replace(tiny, sizes=sizes, metadata=metadata)


def split_ups(name: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if "kv_b_proj" not in name:
        yield name.replace("correction_bias", "correction.bias"), values
        return
    heads = values.reshape(4, -1, values.shape[-1])
    yield name.replace("kv_b", "k_b"), np.ascontiguousarray(heads[:, :32].swapaxes(1, 2))
    yield name.replace("kv_b", "v_b"), heads[:, 32:]


@pytest.mark.parametrize("name", published.CASES)
def test_deepseek_s_folder_and_gguf_file_give_the_reference_s_distribution(
    name: str, tmp_path: pathlib.Path
) -> None:
    tiny = wide(name)
    model = tiny.build()
    expected = reference(model, TOKENS)
    folder = open_folder(save_folder(model, tmp_path))
    for spec, weights in (folder, open_gguf(save_gguf(model, tiny, tmp_path, change=split_ups))):
        runner = NativeRunner.load(spec, weights, num_blocks=64, threads=1)
        blocks = [9, 3, 4, 60, 11]
        cuts = (0, 50, 74, 75)
        parts = [runner.logits(ragged([(TOKENS[a:b], a, blocks)])) for a, b in itertools.pairwise(cuts)]
        assert np.median(divergence(expected, np.concatenate(parts))) < MEDIAN_KL
        runner.close()


@pytest.mark.parametrize("name", LATENT)
def test_threads_share_heads_and_change_no_bit(name: str) -> None:
    spec = LATENT[name]
    weights = random_weights(spec, "Q8_0")
    load = partial(NativeRunner.load, spec, weights, num_blocks=64, kernels=ROW_BY_ROW)
    one, three = load(threads=1), load(threads=3)
    tokens = [token % spec.vocab_size for token in TOKENS]
    for batch in (ragged([(tokens[:40], 0, [7, 3, 9])]), ragged([(tokens[40:41], 40, [7, 3, 9])])):
        np.testing.assert_array_equal(three.logits(batch), one.logits(batch))
    for runner in (one, three):
        runner.close()


def test_copied_blocks_and_slots_hold_what_was_copied() -> None:
    spec = LATENT["latent attention"]
    runner = NativeRunner.load(
        spec, random_weights(spec, "Q8_0"), num_blocks=64, threads=1, kernels=ROW_BY_ROW
    )
    tokens = [token % spec.vocab_size for token in TOKENS]
    runner.logits(ragged([(tokens[:40], 0, [7, 3, 9])]))
    expected = runner.logits(ragged([(tokens[40:44], 40, [7, 3, 9])]))
    for source, target in ((7, 20), (3, 21)):
        runner.copy_block(source, target)
    runner.copy_slots([(9 * 16 + i, 22 * 16 + i) for i in range(8)])
    np.testing.assert_array_equal(runner.logits(ragged([(tokens[40:44], 40, [20, 21, 22])])), expected)
    runner.close()


@pytest.mark.row("cost-mla", "mechanism")
def test_a_block_of_the_kernels_holds_one_vector_and_one_rotated_key_per_token() -> None:
    spec = latent(kv_rank=512, nope_dim=128, value_dim=128, rope=Rope(dim=64), heads=4)
    runner = NativeRunner.load(spec, random_weights(spec, "Q8_0"), num_blocks=4, threads=1)
    assert runner.block_bytes == spec.layers * 16 * (512 + 64) * 2
    assert runner.block_bytes == 16 * spec.kv_bytes_per_token(2)
    runner.close()


def test_what_the_kernels_keep_whole_is_refused_in_codes_and_by_head() -> None:
    spec = dataclasses.replace(LATENT["latent attention"], name="tiny")
    weights = random_weights(spec, "Q8_0")
    with pytest.raises(Incompatible, match=r"'tiny' keeps one vector for all heads.*set kv_dtype to auto"):
        NativeRunner.load(spec, weights, num_blocks=4, kv_dtype="int8")
    with pytest.raises(Incompatible, match="attention is not counted in model 'tiny'"):
        NativeRunner.load(spec, weights, num_blocks=4, attention_scores=True)
    odd = latent(nope_dim=24)
    with pytest.raises(Incompatible, match="latent attention with a nope_dim of 24, no multiple of 32"):
        NativeRunner.load(odd, random_weights(odd, "F32"), num_blocks=4)


def _sparse() -> ModelSpec:
    """Routed experts without a gate whose activations are mostly zero, and shared ones."""
    inner = FeedForward(width=64, gated=False, activation="relu_squared")
    routed = Experts(count=8, per_token=2, expert=inner, shared=inner, normalised=True)
    spec = tiny_spec().with_attention(scale=0.125)  # said, so that PyTorch counts its products
    return spec.with_blocks(lambda block: dataclasses.replace(block, feed_forward=routed))


def _mixed() -> ModelSpec:
    """Latent attention and routed experts."""
    routed = Experts(count=8, per_token=3, expert=FeedForward(width=64), shared=FeedForward(width=96))
    return latent().with_blocks(lambda block: dataclasses.replace(block, feed_forward=routed))


@pytest.mark.row("cost-mla", "effect", claims=(2,))
@pytest.mark.parametrize(
    ("name", "spec"), [("MLA", latent()), ("MLA and MoE", _mixed()), ("MoE of sparse neurons", _sparse())]
)
def test_predicted_operations_and_bytes_are_those_that_are_counted(
    name: str, spec: ModelSpec, measured: Measure
) -> None:
    """One token behind 400: the spec's prediction beside PyTorch's own count of what it multiplied, and
    beside the bytes that the kernels took."""
    weights = random_weights(spec, "Q8_0")
    plain = TorchRunner.load(spec, weights, num_blocks=64, dtype="float32")
    blocks = range(26)
    tokens = np.random.default_rng(4).integers(0, spec.vocab_size, 401).tolist()
    plain.logits(ragged([(tokens[:400], 0, blocks)]))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        plain.logits(ragged([(tokens[400:], 400, blocks)]))
    predicted = spec.flops(1, 401)
    measured(
        f"{name}: operations predicted / counted",
        predicted / counter.get_total_flops(),
        at_least=0.9,
        unit="x",
    )
    measured(
        f"{name}: operations counted / predicted",
        counter.get_total_flops() / predicted,
        at_least=0.9,
        unit="x",
    )
    runner = NativeRunner.load(spec, weights, num_blocks=4, threads=1)
    bytes_of_block = 16 * spec.kv_bytes_per_token(runner.form.kv_bits / 8)
    measured(
        f"{name}: KV bytes off prediction", abs(runner.block_bytes / bytes_of_block - 1), at_most=0.1, unit=""
    )
    form = runner.form
    vectors = sum(
        np.prod(shape) for name, shape in spec.tensors().items() if len(shape) == 1 or "router" in name
    )
    head = spec.vocab_size * spec.width
    matrices = spec.parameters - int(vectors) - 2 * head
    predicted_bytes = (matrices * form.weight_bits + 2 * head * form.head_bits) / 8
    measured(
        f"{name}: weight bytes off prediction",
        abs(runner.weight_bytes / predicted_bytes - 1),
        at_most=0.1,
        unit="",
    )
    runner.close()


@pytest.mark.row("cost-mla", "effect", claims=(1,))
@pytest.mark.parametrize(
    ("name", "heads", "sizes"),
    [
        ("DeepSeek-V3", 128, {"kv_rank": 512, "nope_dim": 128, "value_dim": 128, "rope": Rope(dim=64)}),
        ("DeepSeek-V2-Lite", 16, {"kv_rank": 512, "nope_dim": 128, "value_dim": 128, "rope": Rope(dim=64)}),
    ],
)
def test_the_kernels_cache_is_a_small_part_of_what_the_heads_would_keep(
    name: str, heads: int, sizes: dict[str, Any], measured: Measure
) -> None:
    """Blocks that the kernels took, in the geometry of attention that was published, beside keys and values
    of as many heads of those sizes."""
    spec = latent(heads=heads, q_rank=None, **sizes)
    runner = NativeRunner.load(spec, random_weights(spec, "Q8_0"), num_blocks=2, threads=1)
    mixer = spec.blocks[0].mixer
    assert isinstance(mixer, LatentAttention)
    whole = spec.layers * 16 * heads * (mixer.key_dim + mixer.value_dim) * 2
    measured(f"{name}: KV bytes of MHA's", runner.block_bytes / whole, at_most=0.15, unit="")
    runner.close()
