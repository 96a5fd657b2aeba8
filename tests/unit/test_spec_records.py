"""The records tell published models: parameters, cache and compute derive from them, layer by layer."""

from __future__ import annotations

import dataclasses
import math

import pytest

import published_specs as published
from pentad.errors import Incompatible
from pentad.execution.form import ModelForm
from pentad.execution.layers import Block, Experts, FeedForward
from pentad.execution.mixers import Attention
from pentad.execution.native.choice import unsupported_geometry
from pentad.execution.spec import ModelSpec
from pentad.execution.spec_summary import spec_summary
from pentad.execution.support import check_supported, first_unsupported
from pentad.resource.cost import products_of

PARAMETERS = {
    "llama_3_8b": 8_030_261_248,
    "qwen3_0_6b": 596_049_920,
    "mixtral_8x7b": 46_702_792_704,
    "gemma_3_1b": 999_885_952,
    "gemma_2_2b": 2_614_341_888,
    "gpt_oss_20b": 20_914_757_184,
    "deepseek_v2_lite": 15_706_484_224,
    "gpt_j_6b": 6_050_882_784,
    "bloom_560m": 559_214_592,
    "gpt_2": 124_439_808,
    "t5_small": 60_506_624,
    "whisper_tiny": 37_760_640,
}
"""As `num_parameters()` of the published checkpoints in transformers gives them; tied tensors count once."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_published_model_has_its_published_parameters(name: str) -> None:
    spec: ModelSpec = getattr(published, name)()
    assert spec.parameters == PARAMETERS[name]
    outside = sum(
        math.prod(shape) for tensor, shape in spec.tensors().items() if not tensor.startswith("layers.")
    )
    assert spec.layer_parameters() + outside == spec.parameters


def test_the_parameters_of_vit_are_those_of_its_tower() -> None:
    assert published.vit_b_16().parameters == 86_567_656 - (768 * 1000 + 1000)


def test_falcon_shares_one_norm_and_one_key_head() -> None:
    spec = published.falcon_7b()
    assert spec.parameters == 6_921_720_704
    assert spec.attention == "mqa"


def test_mamba_2_holds_a_state_in_place_of_a_cache() -> None:
    spec = published.mamba_2_130m()
    assert spec.parameters == 128_989_632
    assert spec.kv_bytes_per_token() == 0
    assert spec.state_bytes(1) == 24 * (24 * 64 * 128 + 3 * (24 * 64 + 2 * 128))


def test_a_token_goes_through_its_experts_alone() -> None:
    mixtral, deepseek = published.mixtral_8x7b(), published.deepseek_v2_lite()
    assert round(mixtral.active_parameters / 1e9, 1) == 12.9
    assert round(deepseek.active_parameters / 1e9, 1) == 2.7  # the paper's 2.4 billion leave embeddings out
    assert mixtral.flops(1, 0) == 2 * (mixtral.active_parameters - 32_000 * 4096 - 65 * 4096)


def test_latent_attention_caches_one_vector_for_all_heads() -> None:
    assert published.deepseek_v2_lite().kv_bytes_per_token(2) == 27 * (512 + 64) * 2


def test_cache_and_parameters_of_some_layers_add_up_to_those_of_all() -> None:
    spec, form = published.gated_delta_hybrid(), ModelForm()
    assert [spec.kv_bytes_per_token(2, i, i + 1) for i in range(4)] == [0, 0, 0, 2 * 2 * 64 * 2]
    assert form.kv_bytes(spec, 10, range(3)) == 0
    assert form.kv_bytes(spec, 10, range(3, 8)) == form.kv_bytes(spec, 10)
    assert spec.layer_parameters(0, 3) + spec.layer_parameters(3) == spec.layer_parameters()
    assert spec.attention == "recurrent+gqa"


def test_windows_bound_what_a_token_is_multiplied_with() -> None:
    spec = published.gemma_3_1b()
    pair = 2 * 2 * 4 * 256
    far, near = spec.flops(1, 100_000), spec.flops(1, 512)
    assert far - near == 4 * pair * (100_000 - 512)
    assert (spec.windows.count(512), spec.narrowest_window) == (22, 512)


@pytest.mark.parametrize("name", ["llama_3_8b", "mixtral_8x7b", "deepseek_v2_lite", "gpt_2"])
def test_the_products_of_a_layer_hold_its_matrices(name: str) -> None:
    spec: ModelSpec = getattr(published, name)()
    for block in set(spec.blocks):
        shapes = block.shapes(spec.width)
        matrices = sum(math.prod(shape) for tensor, shape in shapes.items() if shape[1:])
        held = sum(p.n * p.k * p.count for p in products_of(block, spec.width))
        biases = sum(math.prod(s) for t, s in shapes.items() if s[1:] and t.endswith(".bias"))
        assert held == matrices - biases


def test_what_no_runner_computes_is_refused_by_the_name_of_the_part() -> None:
    spec, part = published.whisper_tiny(), "its encoder reads something else than text"
    assert first_unsupported(spec) == part
    assert unsupported_geometry(spec) == "it has an encoder beside its decoder"
    assert first_unsupported(published.t5_small()) is None
    with pytest.raises(Incompatible, match=f"cannot be computed here: {part}"):
        check_supported(spec)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gemma_2_2b", None),
        ("gemma_3_1b", None),
        ("bloom_560m", None),
        ("gpt_2", None),
        ("falcon_7b", None),
        ("gpt_j_6b", None),
        ("deepseek_v2_lite", None),
        ("mamba_2_130m", None),
        ("gated_delta_hybrid", None),
        ("qwen3_0_6b", None),
        ("llama_3_8b", None),
        ("mixtral_8x7b", None),
        ("gpt_oss_20b", None),
    ],
)
def test_what_the_native_kernels_lack_is_computed_by_pytorch(name: str, part: str | None) -> None:
    spec: ModelSpec = getattr(published, name)()
    check_supported(spec)
    assert unsupported_geometry(spec) == part


def test_impossible_records_are_refused() -> None:
    attention, inner = Attention(heads=4, kv_heads=2, head_dim=8), FeedForward(width=8)
    with pytest.raises(ValueError, match="3 query heads do not share 2"):
        dataclasses.replace(attention, heads=3)
    with pytest.raises(ValueError, match="window is 0"):
        dataclasses.replace(attention, window=0)
    with pytest.raises(ValueError, match="9 of 8 experts"):
        Experts(count=8, per_token=9, expert=inner)
    with pytest.raises(ValueError, match="3 of 2 groups"):
        Experts(count=8, per_token=2, expert=inner, groups=2, chosen_groups=3)
    with pytest.raises(ValueError, match="1 groups have no 5 experts"):
        Experts(count=8, per_token=5, expert=inner, groups=2)
    with pytest.raises(ValueError, match="needs shared experts"):
        Experts(count=8, per_token=5, expert=inner, shared_gate=True)
    with pytest.raises(ValueError, match="a layer needs a mixer or a feed-forward"):
        Block(mixer=None, feed_forward=None)
    with pytest.raises(ValueError, match="parallel layers only"):
        Block(mixer=attention, feed_forward=inner, shared_norm=True)


def test_a_summary_tells_equal_layers_once() -> None:
    found = spec_summary(published.deepseek_v2_lite())
    assert list(found["layers"]) == ["0", "1-26"]
    assert found["layers"]["1-26"]["feed_forward"]["count"] == 64
    assert "blocks" not in found
