"""Every geometry the program reads, on tiny random weights, against Hugging Face's own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pentad.execution.spec import Learned, ModelSpec, Norm, Rope, RopeScaling
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.uniform import uniform_spec
from ragged_batches import check_cut_sequences, check_mixed_step
from torch_reference import ArrayWeights, canonical, llama_name

V, E, L, D, F = 160, 64, 3, 16, 96
LLAMA = {
    "vocab_size": V,
    "hidden_size": E,
    "intermediate_size": F,
    "num_hidden_layers": L,
    "num_attention_heads": 4,
    "head_dim": D,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}


def spec(**changes: Any) -> ModelSpec:
    """A Llama geometry in the sizes above, changed as asked."""
    base: dict[str, Any] = {
        "name": "tiny",
        "family": "tiny",
        "vocab_size": V,
        "layers": L,
        "width": E,
        "heads": 4,
        "kv_heads": 4,
        "head_dim": D,
        "ffn_width": F,
        "context_length": 512,
        "positions": Rope(dim=D),
        "norm": Norm(eps=1e-6),
        "tied_head": False,
    }
    return uniform_spec(**{**base, **changes})


@dataclass(frozen=True)
class Case:
    """One geometry: the reference, our spec of it and how its tensors are called."""

    build: Callable[[], Any]
    spec: ModelSpec
    weights: Callable[[Any, ModelSpec], ArrayWeights]


def _llama_like(model: Any, spec: ModelSpec) -> ArrayWeights:
    state = dict(model.state_dict())
    if spec.tied_head:
        state.pop("lm_head.weight")
    return canonical(state, llama_name)


def _bigcode(model: Any, spec: ModelSpec) -> ArrayWeights:
    found: dict[str, np.ndarray] = {}
    names = {
        "ln_1": "attn_norm",
        "ln_2": "ffn_norm",
        "attn.c_proj": "o",
        "mlp.c_fc": "up",
        "mlp.c_proj": "down",
    }
    q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    for key, value in model.state_dict().items():
        array, suffix = value.numpy(), ".bias" if key.endswith(".bias") else ""
        parts = key.removeprefix("transformer.").split(".")
        if parts[0] == "h":
            stem = ".".join(parts[2:-1])
            if stem == "attn.c_attn":
                split = np.split(array, [q, q + kv])
                found |= {
                    f"layers.{parts[1]}.{n}{suffix}": part for n, part in zip("qkv", split, strict=True)
                }
            else:
                found[f"layers.{parts[1]}.{names[stem]}{suffix}"] = array
        elif parts[0] in ("wte", "wpe", "ln_f"):
            found[{"wte": "embed", "wpe": "positions", "ln_f": "final_norm"}[parts[0]] + suffix] = array
    return ArrayWeights(found)


def _falcon(model: Any, spec: ModelSpec) -> ArrayWeights:
    found: dict[str, np.ndarray] = {}
    names = {
        "input_layernorm": "attn_norm",
        "self_attention.dense": "o",
        "mlp.dense_h_to_4h": "up",
        "mlp.dense_4h_to_h": "down",
    }
    q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    for key, value in model.state_dict().items():
        array, suffix = value.numpy(), ".bias" if key.endswith(".bias") else ""
        parts = key.removeprefix("transformer.").split(".")
        if parts[0] == "h":
            stem = ".".join(parts[2:-1])
            if stem == "self_attention.query_key_value":
                split = np.split(array, [q, q + kv])
                found |= {f"layers.{parts[1]}.{n}": part for n, part in zip("qkv", split, strict=True)}
            else:
                found[f"layers.{parts[1]}.{names[stem]}{suffix}"] = array
        elif parts[0] in ("word_embeddings", "ln_f"):
            found[{"word_embeddings": "embed", "ln_f": "final_norm"}[parts[0]] + suffix] = array
    return ArrayWeights(found)


def _gptj(model: Any, spec: ModelSpec) -> ArrayWeights:
    found: dict[str, np.ndarray] = {}
    names = {"ln_1": "attn_norm", "out_proj": "o", "q_proj": "q", "k_proj": "k", "v_proj": "v"}
    names |= {"fc_in": "up", "fc_out": "down"}
    for key, value in model.state_dict().items():
        parts, suffix = key.split("."), ".bias" if key.endswith(".bias") else ""
        if parts[0] == "lm_head" and suffix:
            assert not value.any(), "a bias of the head is none of the spec's options"
        elif parts[0] == "lm_head":
            found["head"] = value.numpy()
        elif parts[1] == "h":
            found[f"layers.{parts[2]}.{names[parts[-2]]}{suffix}"] = value.numpy()
        else:
            found[{"wte": "embed", "ln_f": "final_norm"}[parts[1]] + suffix] = value.numpy()
    return ArrayWeights(found)


def _llama(**settings: Any) -> Callable[[], Any]:
    return lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, **settings}))


def _qwen2(**settings: Any) -> Callable[[], Any]:
    return lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**{**LLAMA, **settings}))


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SCALED = RopeScaling(original_context=64)
BIGCODE = {"n_layer": L, "n_embd": E, "n_head": 4, "n_inner": F, "n_positions": 512, "vocab_size": V}
BIASES = frozenset({"qkv", "out", "ffn"})

CASES: dict[str, Case] = {
    "llama-mha": Case(_llama(num_key_value_heads=4), spec(), _llama_like),
    "llama2-70b-gqa": Case(_llama(num_key_value_heads=2), spec(kv_heads=2), _llama_like),
    "mqa": Case(_llama(num_key_value_heads=1), spec(kv_heads=1), _llama_like),
    "llama3-scaled-rope": Case(
        _llama(num_key_value_heads=2, rope_parameters=LLAMA3, tie_word_embeddings=True),
        spec(kv_heads=2, positions=Rope(dim=D, base=500_000.0, scaling=SCALED), tied_head=True),
        _llama_like,
    ),
    "linear-scaled-rope": Case(
        _llama(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}),
        spec(positions=Rope(dim=D, scaling=RopeScaling(kind="linear", factor=4.0))),
        _llama_like,
    ),
    "qwen2-tied": Case(
        _qwen2(num_key_value_heads=2, tie_word_embeddings=True),
        spec(kv_heads=2, biases=frozenset({"qkv"}), tied_head=True),
        _llama_like,
    ),
    "qwen2-untied": Case(
        _qwen2(num_key_value_heads=2, tie_word_embeddings=False),
        spec(kv_heads=2, biases=frozenset({"qkv"})),
        _llama_like,
    ),
    "qwen2-window-in-last-layers": Case(
        _qwen2(num_key_value_heads=2, use_sliding_window=True, sliding_window=24, max_window_layers=1),
        spec(kv_heads=2, biases=frozenset({"qkv"}), window=24, window_layers=(1, 2)),
        _llama_like,
    ),
    "mistral-window": Case(
        lambda: transformers.MistralForCausalLM(
            transformers.MistralConfig(**{**LLAMA, "num_key_value_heads": 2, "sliding_window": 24})
        ),
        spec(kv_heads=2, window=24),
        _llama_like,
    ),
    "qwen3-qk-norm": Case(
        lambda: transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(**{**LLAMA, "num_key_value_heads": 2})
        ),
        spec(kv_heads=2, qk_norm=True),
        _llama_like,
    ),
    "starcoder-mqa": Case(
        lambda: transformers.GPTBigCodeForCausalLM(
            transformers.GPTBigCodeConfig(**BIGCODE, multi_query=True, initializer_range=0.3)
        ),
        spec(
            kv_heads=1,
            positions=Learned(max_positions=512),
            norm=Norm(kind="layer"),
            activation="gelu_tanh",
            gated=False,
            biases=BIASES,
            tied_head=True,
        ),
        _bigcode,
    ),
    "falcon-parallel-mqa": Case(
        lambda: transformers.FalconForCausalLM(
            transformers.FalconConfig(
                vocab_size=V,
                hidden_size=E,
                num_hidden_layers=L,
                num_attention_heads=4,
                ffn_hidden_size=F,
                multi_query=True,
                parallel_attn=True,
                bias=False,
                initializer_range=0.3,
            )
        ),
        spec(
            kv_heads=1,
            norm=Norm(kind="layer"),
            activation="gelu",
            gated=False,
            parallel_block=True,
            tied_head=True,
        ),
        _falcon,
    ),
    "gptj-parallel-interleaved-partial-rope": Case(
        lambda: transformers.GPTJForCausalLM(
            transformers.GPTJConfig(
                vocab_size=V,
                n_embd=E,
                n_layer=L,
                n_head=4,
                n_inner=F,
                rotary_dim=8,
                n_positions=512,
                initializer_range=0.3,
            )
        ),
        spec(
            positions=Rope(dim=8, pairing="interleaved"),
            norm=Norm(kind="layer"),
            activation="gelu_tanh",
            gated=False,
            biases=frozenset({"ffn"}),
            parallel_block=True,
        ),
        _gptj,
    ),
}
ROWS = {
    "llama-mha": ("m-llama", "m-llama2"),
    "llama2-70b-gqa": ("m-llama2", "mem-gqa"),
    "mqa": ("mem-mqa",),
    "llama3-scaled-rope": ("m-llama3",),
    "qwen2-tied": ("m-qwen25",),
    "qwen2-untied": ("m-qwen25",),
    "starcoder-mqa": ("mem-mqa",),
}
PARAMETERS = [
    pytest.param(name, id=name, marks=[pytest.mark.row(row, "mechanism") for row in ROWS.get(name, ())])
    for name in CASES
]


def _prepared(name: str) -> tuple[Any, TorchRunner]:
    case = CASES[name]
    torch.manual_seed(7)
    model = case.build().eval()
    with torch.no_grad():  # norms and biases start as ones and zeros, which would hide a missing one
        for key, value in model.named_parameters():
            if value.dim() == 1 and key != "lm_head.bias":
                value.add_(torch.randn_like(value) * 0.2)
    runner = TorchRunner.load(case.spec, case.weights(model, case.spec), num_blocks=64, dtype="float32")
    return model, runner


def _reference(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].numpy()


@pytest.mark.parametrize("name", PARAMETERS)
def test_logits_equal_the_reference_however_the_sequence_is_cut(name: str) -> None:
    model, runner = _prepared(name)
    check_cut_sequences(runner.logits, partial(_reference, model), V, 1e-4)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_mixed_step_gives_each_sequence_its_own_logits(name: str) -> None:
    model, runner = _prepared(name)
    check_mixed_step(runner.logits, partial(_reference, model), V, 1e-4)


def test_frequency_factors_of_a_file_equal_the_scaling_they_came_from() -> None:
    from pentad.execution.torch.rope import inverse_frequencies

    plain = inverse_frequencies(Rope(dim=D, base=500_000.0))
    scaled = inverse_frequencies(Rope(dim=D, base=500_000.0, scaling=SCALED))
    factors = tuple((plain / scaled).tolist())
    assert max(factors) == pytest.approx(8.0)
    again = inverse_frequencies(Rope(dim=D, base=500_000.0, frequency_factors=factors))
    torch.testing.assert_close(again, scaled)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.row("mem-gqa", "mechanism", claims=(1,))
@pytest.mark.row("mem-mqa", "mechanism", claims=(1,))
def test_kv_bytes_are_in_the_ratio_of_the_head_counts(kv_heads: int) -> None:
    runner = TorchRunner.load(
        spec(kv_heads=kv_heads),
        _llama_like(_llama(num_key_value_heads=kv_heads)(), spec(kv_heads=kv_heads)),
        num_blocks=8,
        dtype="float32",
    )
    assert runner.block_bytes == 2 * L * kv_heads * D * 16 * 4
    assert runner.block_bytes * 4 == spec().kv_bytes_per_token(4) * 16 * kv_heads
