"""Bamba: Mamba-2 in most layers, attention in the others, half of each head turned; a dense part in all."""

from __future__ import annotations

from pentad.execution.layers import Block, FeedForward
from pentad.execution.mixers import Attention, Norm
from pentad.execution.spec import Head, ModelSpec, Stack
from pentad.model.families import llama, mamba
from pentad.model.families.base import Family
from pentad.model.families.describe import needs
from pentad.model.families.places import Names
from pentad.model.families.rotary import config_rope
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields

_LAYER = "model.layers.{i}."
CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    **mamba.hybrid_names(_LAYER),
    "layers.{i}.ffn_norm": _LAYER + "pre_ff_layernorm",
    **{f"layers.{{i}}.{name}": f"{_LAYER}feed_forward.{name}_proj" for name in ("gate", "up", "down")},
    "final_norm": "model.final_layernorm",
}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` bamba."""
    needs(fields, "hidden_act", "silu")
    for flag in ("attention_bias", "mlp_bias", "mamba_proj_bias"):
        if fields.flag(flag, False):
            fields.fail(flag, "is true; matrices without biases are supported")
    width = fields.integer("hidden_size", low=1)
    heads = fields.integer("num_attention_heads", low=1)
    layers = fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    attending = fields.value("attn_layer_indices", None) or []
    if not isinstance(attending, list) or not set(attending) <= set(range(layers)):
        fields.fail("attn_layer_indices", f"must list layers from 0 to {layers - 1}")
    norm = Norm(eps=fields.number("rms_norm_eps", 1e-5))
    attention = Attention(
        heads=heads,
        kv_heads=fields.integer("num_key_value_heads", heads, low=1),
        head_dim=width // heads,
        positions=config_rope(fields, width // heads, turned=0.5),
    )
    mixer = mamba.config_mixer(fields, width, norm.eps)
    inner = FeedForward(width=fields.integer("intermediate_size", low=1))
    blocks = tuple(
        Block(mixer=attention if i in attending else mixer, feed_forward=inner, norm=norm)
        for i in range(layers)
    )
    return ModelSpec(
        name=fields.source,
        family="bamba",
        vocab_size=fields.integer("vocab_size", low=1),
        context_length=fields.integer("max_position_embeddings", low=1, high=MAX_CONTEXT),
        stack=Stack(width=width, blocks=blocks, final_norm=norm),
        head=Head(tied=fields.flag("tie_word_embeddings", False)),
    )


_HARMLESS = """
attn_rotary_emb mamba_chunk_size z_loss_coefficient num_logits_to_keep layer_types layers_block_type
"""
"""What only training reads, how steps are cut, and what other keys say as well."""
FAMILY = Family(
    name="bamba",
    describe_config=describe_config,
    config_names=CONFIG_NAMES,
    harmless=frozenset(_HARMLESS.split()),
)
