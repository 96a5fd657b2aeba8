"""MPT: ALiBi, LayerNorm without shifts, no biases, fused queries, keys and values that may be cut."""

from __future__ import annotations

from pentad.execution.positions import Alibi
from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families.base import Family
from pentad.model.families.describe import ConfigKeys, config_decoder, gguf_decoder, needs
from pentad.model.families.gpt2 import GGUF_NAMES
from pentad.model.families.places import Names, fused_qkv
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_KEYS = ConfigKeys(
    layers="n_layers",
    width="d_model",
    heads="n_heads",
    kv_heads=None,
    head_dim=None,
    context="max_seq_len",
)
CONFIG_NAMES: Names = {
    "embed": "transformer.wte",
    "final_norm": "transformer.norm_f",
    "head": "lm_head",
    "layers.{i}.attn_norm": "transformer.blocks.{i}.norm_1",
    **fused_qkv("transformer.blocks.{i}.attn.Wqkv"),
    "layers.{i}.o": "transformer.blocks.{i}.attn.out_proj",
    "layers.{i}.ffn_norm": "transformer.blocks.{i}.norm_2",
    "layers.{i}.up": "transformer.blocks.{i}.ffn.up_proj",
    "layers.{i}.down": "transformer.blocks.{i}.ffn.down_proj",
}


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `mpt`."""
    if "blk.0.attn_qkv.bias" in container.tensors:
        fields.fail("blk.0.attn_qkv.bias", "is among the tensors; models without biases are supported")
    spec = gguf_decoder(
        fields,
        container,
        "mpt",
        norm="layer",
        norm_bias=False,
        positions=Alibi(most=fields.number("attention.max_alibi_bias", 8.0)),
        activation="gelu",
        gated=False,
    )
    return spec.with_attention(qkv_clip=fields.number("attention.clamp_kqv", 0.0) or None)


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` mpt."""
    attention = fields.table("attn_config")
    needs(attention, "alibi", True, default=False)
    for key, value in (("qk_ln", False), ("prefix_lm", False), ("attn_type", "multihead_attention")):
        needs(attention, key, value)
    needs(attention, "attn_uses_sequence_id", False)
    needs(fields, "no_bias", True)
    needs(fields, "expansion_ratio", 4)
    needs(fields, "logit_scale", None)
    spec = config_decoder(
        fields,
        "mpt",
        keys=_KEYS,
        ffn_width=4 * fields.integer("d_model", low=1),
        positions=Alibi(most=float(attention.number("alibi_bias_max", 8))),
        norm=Norm(kind="layer", eps=fields.number("layer_norm_epsilon", 1e-5), bias=False),
        activation="gelu",
        gated=False,
        tied_head=fields.flag("tie_word_embeddings", True),
    )
    scale, clip = attention.number("softmax_scale", 0.0), attention.number("clip_qkv", 0.0)
    return spec.with_attention(scale=scale or None, qkv_clip=clip or None)


FAMILY = Family(
    name="mpt",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=frozenset({"learned_pos_emb", "embedding_fraction", "norm_type", "ffn_config", "init_config"}),
)
