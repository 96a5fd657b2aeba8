"""GPT-NeoX and Pythia: parallel parts with a norm each, part of a head turned, rows fused per head."""

from __future__ import annotations

from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families.base import Family
from pentad.model.families.describe import MHA_KEYS, activation, config_decoder, gguf_decoder
from pentad.model.families.gpt2 import EVERY_BIAS, GGUF_NAMES
from pentad.model.families.places import Names, headwise_qkv
from pentad.model.families.rotary import config_rope, gguf_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

CONFIG_NAMES: Names = {
    "embed": "gpt_neox.embed_in",
    "final_norm": "gpt_neox.final_layer_norm",
    "head": "embed_out",
    "layers.{i}.attn_norm": "gpt_neox.layers.{i}.input_layernorm",
    **headwise_qkv("gpt_neox.layers.{i}.attention.query_key_value"),
    "layers.{i}.o": "gpt_neox.layers.{i}.attention.dense",
    "layers.{i}.ffn_norm": "gpt_neox.layers.{i}.post_attention_layernorm",
    "layers.{i}.up": "gpt_neox.layers.{i}.mlp.dense_h_to_4h",
    "layers.{i}.down": "gpt_neox.layers.{i}.mlp.dense_4h_to_h",
}


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `gptneox`, whose fused rows are all queries, keys, values."""
    return gguf_decoder(
        fields,
        container,
        "gpt_neox",
        norm="layer",
        positions=lambda dim: gguf_rope(fields, container, dim, pairing="half"),
        activation="gelu",
        gated=False,
        biases=EVERY_BIAS,
        parallel_block=fields.flag("use_parallel_residual", True),
        shared_norm=False,
    )


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` gpt_neox."""
    base = fields.number("rotary_emb_base", 10_000.0)
    share = fields.number("rotary_pct", 0.25)
    attends = frozenset({"qkv", "out"}) if fields.flag("attention_bias", True) else frozenset()
    return config_decoder(
        fields,
        "gpt_neox",
        keys=MHA_KEYS,
        positions=lambda dim: config_rope(fields, dim, base=base, turned=share),
        norm=Norm(kind="layer", eps=fields.number("layer_norm_eps", 1e-5)),
        activation=activation(fields, default="gelu"),
        gated=False,
        biases=attends | {"ffn"},
        parallel_block=fields.flag("use_parallel_residual", True),
        shared_norm=False,
        tied_head=fields.flag("tie_word_embeddings", False),
    )


FAMILY = Family(
    name="gpt_neox",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
)
