"""The families that are held to the reference, each in the forms in which it is published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from family_files import (
    ALIKE,
    NARROW,
    SIZES,
    Case,
    D,
    F,
    Gguf,
    H,
    K,
    L,
    V,
    interleaved,
    no_rotation,
    permuted,
    stacked_norms,
    transposed,
    ungrouped,
    unit_head,
    whole_norms,
)

WINDOWED = ["sliding_attention", "full_attention", "sliding_attention"]
GPT2_SIZES: dict[str, Any] = {
    "vocab_size": V,
    "n_embd": H * D,
    "n_layer": L,
    "n_head": H,
    "n_positions": 256,
    "initializer_range": 0.25,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA_ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
}
OPT_SIZES: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": H * D,
    "word_embed_proj_dim": H * D,
    "ffn_dim": F,
    "num_hidden_layers": L,
    "num_attention_heads": H,
    "max_position_embeddings": 254,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
BLOOM_SIZES: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": H * D,
    "n_layer": L,
    "n_head": H,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FALCON_SIZES: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": H * D,
    "num_hidden_layers": L,
    "num_attention_heads": H,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NOT_IN_GGUF = "GGUF has no such architecture"
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0 + i / 16 for i in range(D // 4)],
    "long_factor": [1.5 + i / 4 for i in range(D // 4)],
}


def _gemma(form: int, **more: Any) -> dict[str, Any]:
    windows = {"sliding_window": 24, "layer_types": WINDOWED, "query_pre_attn_scalar": 24} if form > 1 else {}
    return {**SIZES, **windows, **more}


State = dict[str, np.ndarray]
Config = dict[str, Any]


def _fused(state: State, name: str, shape: tuple[int, ...] = ()) -> State:
    """Queries, keys and values in one tensor called `name`; with `shape`, each key head's together."""
    found = {key: value for key, value in state.items() if "_proj" not in key or "self_attn.o_proj" in key}
    found |= {key: value for key, value in state.items() if ".mlp." in key}
    for key in state:
        if ".q_proj." in key:
            parts = [state[key.replace("q_proj", f"{n}_proj")] for n in "qkv"]
            if shape:
                rows = [part.reshape(K, -1, D, *part.shape[1:]) for part in parts]
                parts = [np.concatenate(rows, axis=1).reshape(-1, *parts[0].shape[1:])]
            found[key.replace("q_proj", name)] = np.concatenate(parts)
    return found


def _renamed(state: State, names: Mapping[str, str]) -> State:
    found = {}
    for key, value in state.items():
        for old, new in names.items():
            key = key.replace(old, new)
        found[key] = value
    return found


def baichuan(config: Config, state: State) -> tuple[Config, State]:
    config = {k: v for k, v in config.items() if k not in ("head_dim", "num_key_value_heads")}
    return {**config, "model_type": "baichuan"}, _fused(state, "W_pack")


def baichuan_13b(config: Config, state: State) -> tuple[Config, State]:
    made, packed = baichuan(config, state)
    made |= {"max_position_embeddings": None, "rope_parameters": None, "model_max_length": 256}
    return made, packed


def baichuan_2(config: Config, state: State) -> tuple[Config, State]:
    made, packed = baichuan(config, state)
    return {**made, "z_loss_weight": 0}, packed


def unpacked(_: Any, state: State) -> State:
    """W_pack taken apart, as the converter does it."""
    found = {key: value for key, value in state.items() if "W_pack" not in key}
    for key, value in state.items():
        if "W_pack" in key:
            parts = np.split(value, 3)
            turned = (permuted(parts[0], H), permuted(parts[1], H), parts[2])
            found |= {key.replace("W_pack", f"{n}_proj"): part for n, part in zip("qkv", turned, strict=True)}
    return found


def qwen_1(config: Config, state: State) -> tuple[Config, State]:
    names = {
        "model.layers": "transformer.h",
        "model.embed_tokens": "transformer.wte",
        "model.norm": "transformer.ln_f",
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
        "self_attn.o_proj": "attn.c_proj",
        "self_attn.": "attn.",
        "mlp.gate_proj": "mlp.w2",
        "mlp.up_proj": "mlp.w1",
        "mlp.down_proj": "mlp.c_proj",
    }
    made = {
        "model_type": "qwen",
        "vocab_size": V,
        "hidden_size": H * D,
        "num_hidden_layers": L,
        "num_attention_heads": H,
        "intermediate_size": 2 * F,
        "kv_channels": D,
        "seq_length": 256,
        "max_position_embeddings": 1024,
        "layer_norm_epsilon": config["rms_norm_eps"],
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "no_bias": True,
        "scale_attn_weights": True,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "tie_word_embeddings": False,
    }
    return made, _renamed(_fused(state, "c_attn"), names)


def internlm_2(config: Config, state: State) -> tuple[Config, State]:
    names = {
        "embed_tokens": "tok_embeddings",
        "lm_head": "output",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "attention.wo",
        "self_attn.": "attention.",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
    }
    scaling = {"type": "dynamic", "factor": 2.0}
    made = {**config, "model_type": "internlm2", "bias": False, "rope_scaling": scaling, "rope_theta": 10000}
    made.pop("rope_parameters")
    return made, _renamed(_fused(state, "wqkv", shape=(K,)), names)


def minicpm(config: Config, state: State) -> tuple[Config, State]:
    factors = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")
    made = {key: value for key, value in config.items() if key not in factors}
    return {
        **made,
        "model_type": "minicpm",
        "scale_emb": 12,
        "scale_depth": 1.4,
        "dim_model_base": 64,
    }, state


CASES: Mapping[str, Case] = {
    "llama": Case(kind="llama", gguf=Gguf(arch="llama", convert=interleaved)),
    "llama-biased": Case(
        kind="llama",
        config={**SIZES, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        gguf=Gguf(arch="llama", convert=interleaved),
    ),
    "yi": Case(
        kind="llama",
        config=NARROW | {"rope_parameters": {"rope_type": "default", "rope_theta": 5_000_000.0}},
        gguf=Gguf(arch="llama", convert=interleaved),
        row="m-yi",
        claims=(1,),
    ),
    "mistral": Case(
        kind="mistral",
        config={**SIZES, "sliding_window": 24},
        gguf=Gguf(arch="llama", convert=interleaved, keys={"attention.sliding_window": 24}),
    ),
    "ministral": Case(
        kind="ministral",
        config={**SIZES, "sliding_window": 24, "layer_types": WINDOWED},
        gguf="no converter writes its windows by layer",
    ),
    "qwen2": Case(kind="qwen2", config=NARROW, gguf=Gguf(arch="qwen2")),
    "qwen3": Case(kind="qwen3", gguf=Gguf(arch="qwen3")),
    "gemma": Case(kind="gemma", gguf=Gguf(arch="gemma", convert=whole_norms)),
    "gemma2": Case(
        kind="gemma2",
        config=_gemma(2, attn_logit_softcapping=5.0, final_logit_softcapping=3.0, query_pre_attn_scalar=D)
        | {"layer_types": None},
        gguf=Gguf(
            arch="gemma2",
            convert=whole_norms,
            keys={
                "attn_logit_softcapping": 5.0,
                "final_logit_softcapping": 3.0,
                "attention.sliding_window": 24,
            },
        ),
    ),
    "gemma3": Case(
        kind="gemma3_text",
        config=_gemma(3, rope_parameters=GEMMA_ROPES, num_hidden_layers=7, query_pre_attn_scalar=D)
        | {"layer_types": None},
        gguf=Gguf(arch="gemma3", convert=whole_norms, keys={"attention.sliding_window": 24}),
    ),
    "phi3": Case(
        kind="phi3",
        config=NARROW | {"sliding_window": 24},
        gguf=Gguf(arch="phi3", keys={"attention.sliding_window": 24}),
    ),
    "phi4": Case(
        kind="phi3",
        config=NARROW
        | {
            "rope_parameters": LONG | {"partial_rotary_factor": 0.5},
            "original_max_position_embeddings": 256,
            "tie_word_embeddings": True,
        },
        gguf=Gguf(
            arch="phi3",
            extra={
                f"rope_factors_{kind}.weight": np.array(LONG[f"{kind}_factor"], np.float32)
                for kind in ("short", "long")
            },
            keys={"rope.scaling.original_context_length": 256},
        ),
    ),
    "gpt2": Case(
        kind="gpt2",
        config=GPT2_SIZES,
        gguf=Gguf(arch="gpt2", convert=transposed),
        row="m-gpt2",
    ),
    "gpt_bigcode": Case(
        kind="gpt_bigcode",
        config=GPT2_SIZES | {"n_inner": F},
        gguf=Gguf(arch="starcoder", keys={"attention.head_count_kv": 1, "feed_forward_length": F}),
        row="m-starcoder",
    ),
    "gpt2-by-depth": Case(
        kind="gpt2",
        config=GPT2_SIZES | {"scale_attn_by_inverse_layer_idx": True, "n_inner": F},
        gguf="not told in its metadata",
    ),
    "gpt_neox": Case(
        kind="gpt_neox",
        config={**ALIKE, "rotary_pct": 0.25},
        gguf=Gguf(
            arch="gptneox",
            convert=ungrouped("query_key_value"),
            keys={"use_parallel_residual": True},
        ),
    ),
    "gpt_neox-one-after-another": Case(
        kind="gpt_neox",
        config={**ALIKE, "use_parallel_residual": False, "attention_bias": False},
        gguf="as the parallel form",
    ),
    "gptj": Case(
        kind="gptj", config=GPT2_SIZES | {"rotary_dim": 16}, gguf="llama.cpp does not run this architecture"
    ),
    "opt": Case(kind="opt", config=OPT_SIZES, gguf=NOT_IN_GGUF, row="m-opt"),
    "opt-post-norm": Case(
        kind="opt", config=OPT_SIZES | {"do_layer_norm_before": False}, gguf=NOT_IN_GGUF, row="m-opt"
    ),
    "galactica": Case(
        kind="opt",
        config=OPT_SIZES | {"activation_function": "gelu", "enable_bias": False},
        gguf=NOT_IN_GGUF,
        row="m-galactica",
    ),
    "opt-plain-norms": Case(
        kind="opt", config=OPT_SIZES | {"layer_norm_elementwise_affine": False}, gguf=NOT_IN_GGUF
    ),
    "bloom": Case(
        kind="bloom",
        config=BLOOM_SIZES,
        gguf=Gguf(arch="bloom", convert=ungrouped("query_key_value")),
        row="m-bloom",
    ),
    "falcon-7b": Case(
        kind="falcon",
        config=FALCON_SIZES,
        gguf=Gguf(arch="falcon", keys={"attention.head_count_kv": 1}),
        row="m-falcon",
        claims=(1,),
    ),
    "falcon-40b": Case(
        kind="falcon",
        config=FALCON_SIZES | {"new_decoder_architecture": True, "num_kv_heads": K},
        gguf=Gguf(
            arch="falcon",
            convert=ungrouped("query_key_value"),
            keys={"attention.head_count_kv": K},
        ),
        row="m-falcon",
        claims=(1,),
    ),
    "falcon-11b": Case(
        kind="falcon",
        config=FALCON_SIZES
        | {"new_decoder_architecture": True, "num_kv_heads": K, "num_ln_in_parallel_attn": 1},
        gguf="as the 40B form but for its norm",
        row="m-falcon",
        claims=(1,),
    ),
    "falcon-rw": Case(
        kind="falcon",
        attention="sdpa",  # the other code adds the slopes twice
        config=FALCON_SIZES | {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
        gguf="llama.cpp does not run this form",
        row="m-falcon",
        claims=(1,),
    ),
    "starcoder2": Case(
        kind="starcoder2",
        config=NARROW | {"sliding_window": 24},
        gguf=Gguf(arch="starcoder2", keys={"attention.sliding_window": 24}),
    ),
    "mpt": Case(
        kind="mpt",
        config={
            "vocab_size": V,
            "d_model": H * D,
            "n_layers": L,
            "n_heads": H,
            "max_seq_len": 256,
            "attn_config": {"clip_qkv": 1.5},
        },
        gguf=Gguf(arch="mpt", keys={"attention.clamp_kqv": 1.5, "attention.max_alibi_bias": 8.0}),
    ),
    "internlm3": Case(kind="internlm3", gguf="its files are of the architecture llama"),
    "phi": Case(
        kind="phi",
        config=ALIKE,
        gguf=Gguf(arch="phi2", keys={"rope.dimension_count": D // 2}),
    ),
    "glm": Case(
        kind="glm",
        config={**SIZES, "attention_bias": True},
        gguf=Gguf(arch="chatglm", keys={"rope.dimension_count": D // 2}),
    ),
    "glm4": Case(
        kind="glm4",
        config={**SIZES, "attention_bias": True},
        gguf=Gguf(arch="glm4", keys={"rope.dimension_count": D // 2}),
    ),
    "granite": Case(
        kind="granite",
        config=NARROW
        | {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.1,
            "logits_scaling": 4.0,
        },
        gguf=Gguf(
            arch="granite",
            convert=interleaved,
            keys={
                "embedding_scale": 3.0,
                "residual_scale": 0.5,
                "attention.scale": 0.1,
                "logit_scale": 4.0,
            },
        ),
    ),
    "smollm3": Case(
        kind="smollm3",
        config=NARROW | {"num_hidden_layers": 5},
        gguf=Gguf(arch="smollm3", convert=interleaved),
    ),
    "olmo": Case(
        kind="olmo",
        config=NARROW | {"clip_qkv": 1.5},
        gguf=Gguf(
            arch="olmo",
            convert=interleaved,
            keys={"attention.clamp_kqv": 1.5, "attention.layer_norm_epsilon": 1e-5},
        ),
    ),
    "olmo2": Case(kind="olmo2", config=NARROW, gguf=Gguf(arch="olmo2")),
    "olmo3": Case(
        kind="olmo3",
        config=NARROW | {"num_hidden_layers": 5, "sliding_window": 24},
        gguf=Gguf(arch="olmo2", keys={"attention.sliding_window": 24}),
    ),
    "cohere": Case(
        kind="cohere",
        config=NARROW | {"logit_scale": 0.5, "use_qk_norm": True},
        gguf=Gguf(arch="command-r", keys={"logit_scale": 0.5}),
    ),
    "cohere2": Case(
        kind="cohere2",
        config=SIZES | {"logit_scale": 0.5, "sliding_window": 24, "num_hidden_layers": 5},
        gguf=Gguf(arch="cohere2", keys={"logit_scale": 0.5, "attention.sliding_window": 24}),
    ),
    "stablelm": Case(
        kind="stablelm",
        config=NARROW | {"use_qkv_bias": True},
        gguf=Gguf(arch="stablelm", keys={"rope.dimension_count": D // 4}),
    ),
    "stablelm-12b": Case(
        kind="stablelm",
        config=NARROW | {"qk_layernorm": True, "use_parallel_residual": True},
        gguf=Gguf(arch="stablelm", convert=stacked_norms, keys={"rope.dimension_count": D // 4}),
    ),
    "hunyuan": Case(
        kind="hunyuan_v1_dense",
        config=SIZES
        | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 50.0, "factor": 1.0}},
        gguf=Gguf(arch="hunyuan-dense", keys={"rope.freq_base": 1e4 * 50.0 ** (D / (D - 2))}),
    ),
    "ernie4_5": Case(kind="ernie4_5", config=SIZES | {"use_bias": True}, gguf=Gguf(arch="ernie4_5")),
    "nemotron": Case(
        kind="nemotron",
        gguf=Gguf(arch="nemotron", convert=whole_norms, keys={"rope.dimension_count": D // 2}),
    ),
    "baichuan-7b": Case(
        kind="llama",
        config=ALIKE,
        relaid=baichuan,
        gguf="its files tell this form by their 32 layers",
        row="m-baichuan",
        claims=(1,),
    ),
    "baichuan-13b": Case(
        kind="llama",
        config=ALIKE,
        relaid=baichuan_13b,
        prepare=no_rotation,
        gguf=Gguf(arch="baichuan", convert=unpacked),
        row="m-baichuan",
        claims=(1,),
    ),
    "baichuan2-7b": Case(
        kind="llama",
        config=ALIKE,
        relaid=baichuan_2,
        prepare=unit_head,
        gguf="its files keep the head as it is stored",
        row="m-baichuan",
        claims=(1,),
    ),
    "qwen": Case(
        kind="qwen2",
        config=ALIKE | {"num_key_value_heads": H},
        relaid=qwen_1,
        gguf=Gguf(arch="qwen", keys={"feed_forward_length": 2 * F}),
        row="m-qwen",
        claims=(1,),
    ),
    "internlm2": Case(
        kind="llama",
        config=NARROW,
        relaid=internlm_2,
        gguf="its files are laid out like Llama's, under their own name",
    ),
    "skywork": Case(
        kind="llama",
        config=ALIKE,
        relaid=lambda config, state: ({**config, "model_type": "skywork"}, state),
        gguf=NOT_IN_GGUF,
        row="m-skywork",
        claims=(2,),
    ),
    "minicpm": Case(
        kind="granite",
        config=NARROW
        | {
            "embedding_multiplier": 12.0,
            "residual_multiplier": 1.4 / L**0.5,
            "attention_multiplier": D**-0.5,
            "logits_scaling": H * D / 64,
        },
        relaid=minicpm,
        gguf=Gguf(
            arch="minicpm",
            convert=interleaved,
            keys={
                "embedding_scale": 12.0,
                "residual_scale": 1.4 / L**0.5,
                "logit_scale": H * D / 64,
            },
        ),
    ),
}
