"""Kinds of layers beyond Llama's, on tiny random weights, against Hugging Face's own code.

ALiBi, two norms a part, norms on outputs, caps, norms with an offset, scales of embeddings and of what is
added, parallel parts with a norm each, layers that differ in window and positions, sinks.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pentad.errors import Incompatible
from pentad.execution.checks import check_window
from pentad.execution.mixers import Attention, Norm
from pentad.execution.positions import Alibi, Learned, Rope, RopeScaling
from pentad.execution.spec import Block, FeedForward, Head, ModelSpec, Stack
from pentad.execution.torch.attention import TextAttention
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.uniform import uniform_spec
from ragged_batches import check_cut_sequences, check_mixed_step, ragged
from torch_reference import ArrayWeights, tiny_arrays

V, E, L, H, D, F = 160, 64, 3, 4, 16, 96
SIZES: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": E,
    "intermediate_size": F,
    "num_hidden_layers": L,
    "num_attention_heads": H,
    "num_key_value_heads": 2,
    "head_dim": D,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "attn_implementation": "eager",
}
EVERY_BIAS = frozenset({"qkv", "out", "ffn"})
Weights = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def plain(**changes: Any) -> ModelSpec:
    """A decoder in the sizes above."""
    sizes = {"layers": L, "width": E, "heads": H, "kv_heads": H, "head_dim": D, "ffn_width": 4 * E}
    fixed = {"name": "tiny", "family": "tiny", "vocab_size": V, "context_length": 512}
    return uniform_spec(**{**fixed, **sizes, **changes})


def stacked(blocks: tuple[Block, ...], norm: Norm, head: Head, embedding_scale: float = 1.0) -> ModelSpec:
    return ModelSpec(
        name="tiny",
        family="tiny",
        vocab_size=V,
        context_length=512,
        stack=Stack(width=E, blocks=blocks, final_norm=norm),
        head=head,
        embedding_scale=embedding_scale,
    )


def renamed(names: Mapping[str, str], top: Mapping[str, str]) -> Weights:
    """Hugging Face names by the part behind the layer's number."""

    def weights(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {}
        for key, value in state.items():
            stem, _, kind = key.rpartition(".")
            suffix = ".bias" if kind == "bias" else ""
            if (match := re.search(r"\.(?:layers|h)\.(\d+)\.(.*)", f".{stem}")) is not None:
                found[f"layers.{match[1]}.{names[match[2]]}{suffix}"] = value
            elif stem in top:
                found[top[stem] + suffix] = value
        return found

    return weights


PROJECTIONS = {
    **{f"self_attn.{n}_proj": n for n in "qkvo"},
    **{f"self_attn.{n}_norm": f"{n}_norm" for n in "qk"},
    **{f"mlp.{n}_proj": n for n in ("gate", "up", "down")},
}
TOP = {"model.embed_tokens": "embed", "model.norm": "final_norm", "lm_head": "head"}
FOUR_NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "attn_out_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "ffn_out_norm",
}


def split_heads(names: Mapping[str, str], top: Mapping[str, str], fused: str) -> Weights:
    """Where queries, keys and values of each head stand together in one tensor."""
    rest = renamed({**names, fused: "fused"}, top)

    def weights(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {}
        for key, value in rest(state).items():
            if ".fused" not in key:
                found[key] = value
                continue
            parts = value.reshape(H, 3, D, *value.shape[1:])
            found |= {
                key.replace("fused", n): parts[:, i].reshape(H * D, *value.shape[1:])
                for i, n in enumerate("qkv")
            }
        return found

    return weights


def gpt2(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Matrices stand transposed."""
    names = {
        "ln_1": "attn_norm",
        "ln_2": "ffn_norm",
        "attn.c_attn": "fused",
        "attn.c_proj": "o",
        "mlp.c_fc": "up",
        "mlp.c_proj": "down",
    }
    top = {"transformer.wte": "embed", "transformer.wpe": "positions", "transformer.ln_f": "final_norm"}
    found = {}
    for key, value in renamed(names, top)(state).items():
        turned = value.T if key.startswith("layers.") else value
        if ".fused" in key:
            found |= {
                key.replace("fused", n): part for n, part in zip("qkv", np.split(turned, 3), strict=True)
            }
        else:
            found[key] = turned
    return found


def gemma_blocks(**changes: Any) -> tuple[Block, ...]:
    """Norms around each part, of scales less 1; the second layer sees all."""
    norm = Norm(eps=1e-6, offset=1.0)

    def block(window: int | None, rope: Rope) -> Block:
        attention = {"heads": H, "kv_heads": 2, "head_dim": D, "scale": 24**-0.5, **changes}
        return Block(
            mixer=Attention(window=window, positions=rope, **attention),
            feed_forward=FeedForward(width=F, activation="gelu_tanh"),
            norm=norm,
            placement="both",
        )

    far = Rope(dim=D, base=1_000_000.0) if "qk_norm" in changes else Rope(dim=D)
    return block(24, Rope(dim=D)), block(None, far), block(24, Rope(dim=D))


TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA = {**SIZES, "query_pre_attn_scalar": 24, "sliding_window": 24, "layer_types": TYPES}
GEMMA_3_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
}
CASES: dict[str, tuple[Callable[[], Any], ModelSpec, Weights]] = {
    "bloom": (
        lambda: transformers.BloomForCausalLM(
            transformers.BloomConfig(
                vocab_size=V,
                hidden_size=E,
                n_layer=L,
                n_head=H,
                initializer_range=0.3,
                attn_implementation="eager",
            )
        ),
        plain(
            positions=Alibi(),
            norm=Norm(kind="layer"),
            embedding_norm=True,
            activation="gelu_tanh",
            gated=False,
            biases=EVERY_BIAS,
        ),
        split_heads(
            {
                "input_layernorm": "attn_norm",
                "post_attention_layernorm": "ffn_norm",
                "self_attention.dense": "o",
                "mlp.dense_h_to_4h": "up",
                "mlp.dense_4h_to_h": "down",
            },
            {
                "transformer.word_embeddings": "embed",
                "transformer.word_embeddings_layernorm": "embed_norm",
                "transformer.ln_f": "final_norm",
            },
            "self_attention.query_key_value",
        ),
    ),
    "gpt2": (
        lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=V, n_embd=E, n_layer=L, n_head=H, n_positions=512, initializer_range=0.3
            )
        ),
        plain(
            positions=Learned(max_positions=512),
            norm=Norm(kind="layer"),
            activation="gelu_tanh",
            gated=False,
            biases=EVERY_BIAS,
        ),
        gpt2,
    ),
    "gpt-neox": (
        lambda: transformers.GPTNeoXForCausalLM(
            transformers.GPTNeoXConfig(
                **{**SIZES, "intermediate_size": 4 * E}, rotary_pct=0.5, use_parallel_residual=True
            )
        ),
        plain(
            positions=Rope(dim=D // 2),
            norm=Norm(kind="layer"),
            activation="gelu",
            gated=False,
            biases=EVERY_BIAS,
            tied_head=False,
        ).with_blocks(lambda block: dataclasses.replace(block, parallel=True)),
        split_heads(
            {
                "input_layernorm": "attn_norm",
                "post_attention_layernorm": "ffn_norm",
                "attention.dense": "o",
                "mlp.dense_h_to_4h": "up",
                "mlp.dense_4h_to_h": "down",
            },
            {
                "gpt_neox.embed_in": "embed",
                "gpt_neox.final_layer_norm": "final_norm",
                "embed_out": "head",
                "lm_head": "head",
            },
            "attention.query_key_value",
        ),
    ),
    "gemma-2": (
        lambda: transformers.Gemma2ForCausalLM(
            transformers.Gemma2Config(
                **GEMMA, attn_logit_softcapping=2.0, final_logit_softcapping=3.0, tie_word_embeddings=True
            )
        ),
        stacked(
            gemma_blocks(score_cap=2.0), Norm(eps=1e-6, offset=1.0), Head(cap=3.0), embedding_scale=E**0.5
        ),
        renamed({**PROJECTIONS, **FOUR_NORMS}, {k: v for k, v in TOP.items() if v != "head"}),
    ),
    "gemma-3": (
        lambda: transformers.Gemma3ForCausalLM(
            transformers.Gemma3TextConfig(**GEMMA, rope_parameters=GEMMA_3_ROPE, tie_word_embeddings=True)
        ),
        stacked(gemma_blocks(qk_norm="head"), Norm(eps=1e-6, offset=1.0), Head(), embedding_scale=E**0.5),
        renamed({**PROJECTIONS, **FOUR_NORMS}, {k: v for k, v in TOP.items() if v != "head"}),
    ),
    "olmo-2": (
        lambda: transformers.Olmo2ForCausalLM(
            transformers.Olmo2Config(**{k: v for k, v in SIZES.items() if k != "head_dim"}, rms_norm_eps=1e-5)
        ),
        stacked(
            (
                Block(
                    mixer=Attention(heads=H, kv_heads=2, head_dim=D, positions=Rope(dim=D), qk_norm="all"),
                    feed_forward=FeedForward(width=F),
                    placement="output",
                ),
            )
            * L,
            Norm(),
            Head(tied=False),
        ),
        renamed(
            {
                **PROJECTIONS,
                "post_attention_layernorm": "attn_out_norm",
                "post_feedforward_layernorm": "ffn_out_norm",
            },
            TOP,
        ),
    ),
    "yarn": (
        lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                **SIZES,
                rope_parameters={
                    "rope_type": "yarn",
                    "rope_theta": 10_000.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 128,
                    "beta_fast": 8.0,
                    "beta_slow": 1.0,
                },
                rms_norm_eps=1e-5,
                tie_word_embeddings=False,
            )
        ),
        plain(
            kv_heads=2,
            ffn_width=F,
            positions=Rope(
                dim=D,
                scaling=RopeScaling(
                    kind="yarn",
                    factor=4.0,
                    original_context=128,
                    fast_turns=8.0,
                    magnitude=0.1 * math.log(4.0) + 1,
                ),
            ),
            tied_head=False,
        ),
        renamed({**PROJECTIONS, "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}, TOP),
    ),
    "granite": (
        lambda: transformers.GraniteForCausalLM(
            transformers.GraniteConfig(
                **{k: v for k, v in SIZES.items() if k != "head_dim"},
                embedding_multiplier=3.0,
                residual_multiplier=0.5,
                attention_multiplier=0.1,
                logits_scaling=4.0,
                rms_norm_eps=1e-5,
                tie_word_embeddings=False,
            )
        ),
        stacked(
            (
                Block(
                    mixer=Attention(heads=H, kv_heads=2, head_dim=D, positions=Rope(dim=D), scale=0.1),
                    feed_forward=FeedForward(width=F),
                    residual_scale=0.5,
                ),
            )
            * L,
            Norm(),
            Head(tied=False, scale=0.25),
            embedding_scale=3.0,
        ),
        renamed({**PROJECTIONS, "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}, TOP),
    ),
}


def prepared(name: str) -> tuple[Any, TorchRunner]:
    build, spec, weights = CASES[name]
    torch.manual_seed(7)
    model = build().eval()
    with torch.no_grad():  # norms and biases start as ones and zeros, which would hide a missing one
        for value in model.parameters():
            if value.dim() == 1:
                value.add_(torch.randn_like(value) * 0.2)
    state = {key: value.detach().float().numpy() for key, value in model.named_parameters()}
    runner = TorchRunner.load(spec, ArrayWeights(weights(state)), num_blocks=64, dtype="float32")
    return model, runner


def reference(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = model(torch.tensor([tokens])).logits[0].numpy()
        return found


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_the_reference_whole_in_chunks_and_from_the_cache(name: str) -> None:
    model, runner = prepared(name)
    check_cut_sequences(runner.logits, partial(reference, model), V, 2e-4)


@pytest.mark.parametrize("name", CASES)
def test_a_sequence_gets_in_a_batch_what_it_gets_alone(name: str) -> None:
    model, runner = prepared(name)
    check_mixed_step(runner.logits, partial(reference, model), V, 2e-4)


def sinking() -> tuple[ModelSpec, ArrayWeights]:
    spec = plain(kv_heads=2, positions=Rope(dim=D)).with_attention(sinks=True)
    arrays = tiny_arrays(spec)
    for i in range(L):
        arrays[f"layers.{i}.sinks"] = np.full(H, 1.5)
    return spec, ArrayWeights(arrays)


def test_a_sink_takes_weight_and_gives_nothing() -> None:
    """A sink of a very low score changes nothing; of a very high one, attention gives nothing at all."""
    spec, weights = sinking()
    bare = ArrayWeights({k: v for k, v in weights.arrays.items() if not k.endswith("sinks")})
    batch = ragged([(list(range(40)), 0, [0, 1, 2])])

    def logits(value: float | None, **changed: np.ndarray) -> np.ndarray:
        if value is None:
            source, of = ArrayWeights({**bare.arrays, **changed}), spec.with_attention(sinks=False)
        else:
            sinks = {f"layers.{i}.sinks": np.full(H, value) for i in range(L)}
            source, of = ArrayWeights({**weights.arrays, **sinks}), spec
        return TorchRunner.load(of, source, num_blocks=4, dtype="float32").logits(batch)

    np.testing.assert_allclose(logits(-1e9), logits(None), atol=1e-4)
    silent = {f"layers.{i}.o": np.zeros((E, H * D)) for i in range(L)}
    np.testing.assert_allclose(logits(1e9), logits(None, **silent), atol=1e-4)
    assert np.abs(logits(1.5) - logits(None)).max() > 0.01


def test_texts_end_to_end_are_scored_as_cached_ones() -> None:
    """What calibration and training compute is what the runner computes."""
    spec, weights = sinking()
    runner = TorchRunner.load(spec, weights, num_blocks=8, dtype="float32")
    program, _ = runner._open()
    tokens = torch.arange(30)
    with torch.inference_mode():
        hidden = program.hidden(tokens, torch.arange(30), TextAttention(spec, [30], program.rules))
        found = program.logits(hidden).numpy()
    np.testing.assert_allclose(found, runner.logits(ragged([(list(range(30)), 0, [3, 1])])), atol=1e-4)


def test_trees_of_drafts_are_refused_where_positions_are_distances() -> None:
    with pytest.raises(Incompatible, match="has ALiBi positions"):
        check_window(CASES["bloom"][1])
