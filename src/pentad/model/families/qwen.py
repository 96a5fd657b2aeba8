"""Qwen 1: the Llama block in GPT-2's names, with fused and biased queries, keys and values.

Its code is not part of `transformers`. Its NTK and log-n scalings begin beyond the trained length, where a
context ends here.
"""

from __future__ import annotations

from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import ConfigKeys, config_decoder, gguf_decoder, needs
from pentad.model.families.places import Names, fused_qkv
from pentad.model.families.rotary import config_rope, gguf_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_QKV = frozenset({"qkv"})
GGUF_NAMES: Names = {**llama.GGUF_NAMES, **fused_qkv("blk.{i}.attn_qkv")}
CONFIG_NAMES: Names = {
    "embed": "transformer.wte",
    "final_norm": "transformer.ln_f",
    "head": "lm_head",
    "layers.{i}.attn_norm": "transformer.h.{i}.ln_1",
    **fused_qkv("transformer.h.{i}.attn.c_attn"),
    "layers.{i}.o": "transformer.h.{i}.attn.c_proj",
    "layers.{i}.ffn_norm": "transformer.h.{i}.ln_2",
    "layers.{i}.gate": "transformer.h.{i}.mlp.w2",
    "layers.{i}.up": "transformer.h.{i}.mlp.w1",
    "layers.{i}.down": "transformer.h.{i}.mlp.c_proj",
}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` qwen; its `intermediate_size` counts both halves."""
    needs(fields, "no_bias", True)
    needs(fields, "scale_attn_weights", True)
    base = fields.number("rotary_emb_base", 10_000.0)
    return config_decoder(
        fields,
        "qwen",
        keys=ConfigKeys(kv_heads=None, head_dim="kv_channels", context="seq_length"),
        ffn_width=fields.integer("intermediate_size", low=2) // 2,
        positions=lambda dim: config_rope(fields, dim, base=base, turned=fields.number("rotary_pct", 1.0)),
        norm=Norm(eps=fields.number("layer_norm_epsilon", 1e-6)),
        biases=_QKV,
        tied_head=fields.flag("tie_word_embeddings", False),
    )


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `qwen`, whose feed-forward's length counts both halves."""
    return gguf_decoder(
        fields,
        container,
        "qwen",
        ffn_width=fields.integer("feed_forward_length", low=2) // 2,
        positions=lambda dim: gguf_rope(fields, container, dim, pairing="half"),
        biases=_QKV,
    )


FAMILY = Family(
    name="qwen",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=frozenset(
        {
            *("use_dynamic_ntk", "use_logn_attn", "max_position_embeddings", "fp32", "fp16", "bf16"),
            *("softmax_in_fp32", "use_cache_quantization", "use_cache_kernel", "tokenizer_type"),
        }
    ),
)
