"""BLOOM: ALiBi, normed embeddings, LayerNorm and biases everywhere, rows fused per head."""

from __future__ import annotations

from pentad.execution.positions import Alibi
from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families.base import Family
from pentad.model.families.describe import ConfigKeys, config_decoder, gguf_decoder, needs
from pentad.model.families.gpt2 import EVERY_BIAS
from pentad.model.families.gpt2 import GGUF_NAMES as FUSED_NAMES
from pentad.model.families.places import Names, headwise_qkv
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

GGUF_NAMES: Names = {**FUSED_NAMES, "embed_norm": "token_embd_norm"}
CONFIG_NAMES: Names = {
    "embed": "word_embeddings",
    "embed_norm": "word_embeddings_layernorm",
    "final_norm": "ln_f",
    "head": "lm_head",
    "layers.{i}.attn_norm": "h.{i}.input_layernorm",
    **headwise_qkv("h.{i}.self_attention.query_key_value"),
    "layers.{i}.o": "h.{i}.self_attention.dense",
    "layers.{i}.ffn_norm": "h.{i}.post_attention_layernorm",
    "layers.{i}.up": "h.{i}.mlp.dense_h_to_4h",
    "layers.{i}.down": "h.{i}.mlp.dense_4h_to_h",
}
_HARMLESS = """
slow_but_exact skip_bias_add skip_bias_add_qkv offset_alibi n_inner masked_softmax_fusion bias_dropout_fusion
num_attention_heads
"""
_PAST_TRAINING = 2
"""Contexts that are served, in trained lengths: distances have no end (Press et al. 2021, section 4)."""


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `bloom`, whose fused rows are all queries, keys, values."""
    return gguf_decoder(
        fields,
        container,
        "bloom",
        norm="layer",
        positions=Alibi(),
        embedding_norm=True,
        activation="gelu_tanh",
        gated=False,
        biases=EVERY_BIAS,
    )


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` bloom."""
    needs(fields, "apply_residual_connection_post_layernorm", False)
    keys = ConfigKeys(
        layers="n_layer" if fields.has("n_layer") else "num_hidden_layers",
        heads="n_head" if fields.has("n_head") else "num_attention_heads",
        width="n_embed" if fields.has("n_embed") else "hidden_size",
        kv_heads=None,
        head_dim=None,
        ffn_width="",
    )
    return config_decoder(
        fields,
        "bloom",
        keys=keys,
        context_length=_PAST_TRAINING * fields.integer("seq_length", 2048, low=1),
        positions=Alibi(),
        norm=Norm(kind="layer", eps=fields.number("layer_norm_epsilon", 1e-5)),
        embedding_norm=True,
        activation="gelu_tanh",
        gated=False,
        biases=EVERY_BIAS,
        tied_head=fields.flag("tie_word_embeddings", True),
    )


FAMILY = Family(
    name="bloom",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    optional_prefixes=("transformer.",),
    harmless=frozenset(_HARMLESS.split()),
)
