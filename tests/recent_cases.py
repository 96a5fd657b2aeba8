"""Cases of families with experts and other blocks of recent years, as family_cases.py has the older ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers

from family_files import NARROW, SIZES, Arrays, Case, D, Gguf

Config = dict[str, Any]
State = dict[str, np.ndarray]

FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
"""Magnitudes of the eight codes of a sign."""


def _exponents(shape: tuple[int, ...]) -> np.ndarray:
    """[..., in / 32] of a matrix [..., in]: two steps that take turns."""
    return np.broadcast_to(np.arange(shape[-1] // 32) % 2 - 3, (*shape[:-1], shape[-1] // 32))


def _codes(matrix: np.ndarray) -> np.ndarray:
    """[..., in] codes of the nearest numbers that MXFP4 has at those steps."""
    scaled = matrix / np.repeat(2.0 ** _exponents(matrix.shape), 32, axis=-1)
    nearest = np.abs(np.abs(scaled)[..., None] - FP4).argmin(-1)
    return (nearest + 8 * (scaled < 0)).astype(np.uint8)


def in_fp4(model: Any) -> None:
    """Experts whose matrices MXFP4 holds exactly."""
    for layer in model.model.layers:
        for part in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
            matrix = part.detach().transpose(1, 2).contiguous().numpy()
            codes, steps = _codes(matrix), np.repeat(2.0 ** _exponents(matrix.shape), 32, axis=-1)
            rounded = (np.where(codes >= 8, -1, 1) * FP4[codes & 7] * steps).astype(np.float32)
            with torch.no_grad():
                part.copy_(torch.from_numpy(rounded).transpose(1, 2))


def packed_in_fp4(config: Config, state: State) -> tuple[Config, State]:
    """Experts' matrices as the release holds them: blocks of codes and their exponents."""
    found = {}
    for name, value in state.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            found[name] = value
            continue
        matrix = value.swapaxes(1, 2)
        pairs = _codes(matrix).reshape(*matrix.shape[:-1], -1, 16, 2)
        found[name + "_blocks"] = pairs[..., 0] | pairs[..., 1] << 4
        found[name + "_scales"] = (_exponents(matrix.shape) + 127).astype(np.uint8)
    stored = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    return {**config, "quantization_config": stored}, found


def apart(config: Any, state: Arrays) -> State:
    """gpt-oss as its converter writes it: gate and up as stacks of their own, sinks as weights."""
    found = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if kind == "sinks":
            found[name + ".weight"] = value
        elif kind == "gate_up_proj":
            found[f"{stem}.gate_proj.weight"] = value[..., ::2].swapaxes(1, 2)
            found[f"{stem}.up_proj.weight"] = value[..., 1::2].swapaxes(1, 2)
        elif kind == "gate_up_proj_bias":
            found[f"{stem}.gate_proj.bias"] = value[..., ::2]
            found[f"{stem}.up_proj.bias"] = value[..., 1::2]
        elif kind == "down_proj_bias":
            found[f"{stem}.down_proj.bias"] = value
        elif name.endswith("experts.down_proj"):
            found[f"{name}.weight"] = value.swapaxes(1, 2)
        else:
            found[name] = value
    return found


GPT_OSS: Config = {
    **SIZES,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "sliding_window": 24,
    "rope_parameters": {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 64,
        "rope_theta": 150_000.0,
    },
}

DUAL = {"chunk_size": 32, "local_size": 12, "original_max_position_embeddings": 24}
"""Chunks of 20 tokens; queries grow from position 24 on."""


def _remapped(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: Any,
    scaling: float,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """Dual chunk attention by its matrix of distances: every pair's query is turned by its own distance."""
    length, last = DUAL["chunk_size"] - DUAL["local_size"], DUAL["chunk_size"] - 1
    tokens, dim = query.shape[-2:]
    at = torch.arange(tokens)
    back = (at[:, None] // length) - (at // length)
    asked = torch.where(back == 0, (at % length)[:, None], (at % length + length).clamp(max=last)[:, None])
    turns = (torch.where(back > 1, last, asked) - at % length).float()
    angles = turns[..., None] * 1e4 ** -(torch.arange(0, dim, 2) / dim)
    cos, sin = angles.cos(), angles.sin()
    first, second = query.unsqueeze(-2).chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)  # [B, H, T, S, D]
    key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
    scores = (turned * key.unsqueeze(-3)).sum(-1) * scaling
    grown = 1 + 0.1 * ((at + 1) / DUAL["original_max_position_embeddings"]).clamp(min=1).log()
    scores = (scores * grown[:, None]).masked_fill(at[:, None] < at, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


transformers.AttentionInterface.register("dual_chunks", _remapped)


def unturned(model: Any) -> None:
    """Queries and keys as they are."""
    model.model.rotary_emb.inv_freq.zero_()


LLAMA4: Config = {
    **SIZES,
    "num_hidden_layers": 5,
    "intermediate_size_mlp": 128,
    "num_local_experts": 4,
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 24,
    "floor_scale": 16,
}


def llama4_apart(config: Any, state: Arrays) -> State:
    """Llama 4 as its converter writes it: gate and up as stacks of their own."""
    found = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if kind == "gate_up_proj":
            for part, half in zip(("gate", "up"), np.split(value.swapaxes(1, 2), 2, axis=1), strict=True):
                found[f"{stem}.{part}_proj.weight"] = half
        elif name.endswith("experts.down_proj"):
            found[f"{name}.weight"] = value.swapaxes(1, 2)
        else:
            found[name] = value
    return found


CASES: Mapping[str, Case] = {
    "gpt-oss": Case(
        kind="gpt_oss",
        config=GPT_OSS,
        gguf=Gguf(
            arch="gpt-oss",
            convert=apart,
            keys={
                "attention.sliding_window": 24,
                "expert_count": 5,
                "expert_used_count": 2,
                "expert_feed_forward_length": 96,
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 64,
            },
        ),
    ),
    "gpt-oss-mxfp4": Case(
        kind="gpt_oss",
        config=GPT_OSS,
        prepare=in_fp4,
        relaid=packed_in_fp4,
        gguf="its files are tried in the other form",
    ),
    "llama4": Case(
        kind="llama4_text",
        row="ml-llama4",
        claims=(1,),
        config=LLAMA4,
        gguf=Gguf(
            arch="llama4",
            convert=llama4_apart,
            keys={
                "feed_forward_length": 128,
                "attention.sliding_window": 24,
                "attention.temperature_length": 16,
                "expert_count": 4,
                "expert_used_count": 1,
                "expert_feed_forward_length": 96,
                "interleave_moe_layer_step": 2,
            },
        ),
    ),
    "llama4-without-norms": Case(
        kind="llama4_text",
        config=LLAMA4
        | {"use_qk_norm": False, "attn_temperature_tuning": False, "interleave_moe_layer_step": 1},
        gguf="its files tell this form by their 128 experts",
    ),
    "ministral3": Case(
        kind="ministral3",
        config=SIZES
        | {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 4.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 16,
                "llama_4_scaling_beta": 0.1,
            },
        },
        gguf="its files are of the architecture mistral3",
    ),
    "phimoe": Case(
        kind="phimoe",
        config=NARROW | {"num_local_experts": 6, "attention_bias": True, "lm_head_bias": True},
        gguf="llama.cpp weighs its experts by another rule",
    ),
    "phimoe-longrope": Case(
        kind="phimoe",
        config=NARROW
        | {
            "num_local_experts": 6,
            "router_jitter_noise": 0.2,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0 + i / 16 for i in range(D // 2)],
                "long_factor": [1.5 + i / 4 for i in range(D // 2)],
                "short_mscale": 1.2,
                "long_mscale": 1.3,
                "original_max_position_embeddings": 256,
            },
            "original_max_position_embeddings": 256,
        },
        gguf="as the other form",
    ),
    "hunyuan-moe": Case(
        kind="hunyuan_v1_moe",
        config=SIZES
        | {"num_experts": 5, "moe_topk": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        gguf="its GGUF files are not tried",
    ),
    "minicpm3": Case(
        kind="minicpm3",
        config=NARROW
        | {
            "num_key_value_heads": 4,
            "kv_lora_rank": 32,
            "q_lora_rank": 64,
            "qk_nope_head_dim": 64,
            "qk_rope_head_dim": 32,
            "v_head_dim": 32,
            "dim_model_base": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0 + i / 16 for i in range(16)],
                "long_factor": [1.5 + i / 4 for i in range(16)],
                "original_max_position_embeddings": 256,
            },
        },
        gguf="its GGUF files are not tried",
    ),
    "qwen2-dual-chunks": Case(
        kind="qwen2",
        config=NARROW | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        attention="dual_chunks",
        prepare=unturned,
        relaid=lambda config, state: ({**config, "dual_chunk_attention_config": DUAL}, state),
        gguf="not told in its metadata",
        row="m-dca",
    ),
}
