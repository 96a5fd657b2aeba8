"""MiniCPM 3: latent attention as in DeepSeek-V2 but for the order of rotary pairs; sums scaled by depth."""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import FeedForward
from pentad.execution.mixers import LatentAttention, Norm
from pentad.execution.spec import Block, Head, ModelSpec, Stack
from pentad.model.families import deepseek
from pentad.model.families.describe import activation, needs
from pentad.model.families.rotary import config_rope
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` minicpm3."""
    needs(fields, "attention_bias", False)
    width, heads = fields.integer("hidden_size", low=1), fields.integer("num_attention_heads", low=1)
    needs(fields, "num_key_value_heads", heads)
    layers = fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    norm = Norm(eps=fields.number("rms_norm_eps", 1e-5))
    nope, turned = (
        fields.integer("qk_nope_head_dim", 64, low=1),
        fields.integer("qk_rope_head_dim", 32, low=2),
    )
    block = Block(
        mixer=LatentAttention(
            heads=heads,
            kv_rank=fields.integer("kv_lora_rank", 256, low=1),
            nope_dim=nope,
            value_dim=fields.integer("v_head_dim", width // heads, low=1),
            rope=config_rope(fields, turned),
            q_rank=fields.integer("q_lora_rank", low=1) if fields.has("q_lora_rank") else None,
        ),
        feed_forward=FeedForward(
            width=fields.integer("intermediate_size", low=1),
            activation=activation(fields),
            bias=fields.flag("mlp_bias", False),
        ),
        norm=norm,
        residual_scale=fields.number("scale_depth", layers**0.5) / layers**0.5,
    )
    return ModelSpec(
        name=fields.source,
        family="minicpm3",
        vocab_size=fields.integer("vocab_size", low=1),
        context_length=fields.integer("max_position_embeddings", 32768, low=1, high=MAX_CONTEXT),
        stack=Stack(width=width, blocks=(block,) * layers, final_norm=norm),
        head=Head(
            tied=fields.flag("tie_word_embeddings", True),
            scale=fields.number("dim_model_base", width) / width,
        ),
        embedding_scale=fields.number("scale_emb", 12.0),
    )


FAMILY = dataclasses.replace(
    deepseek.FAMILY,
    name="minicpm3",
    describe_gguf=None,
    describe_config=describe_config,
    harmless=frozenset({"head_dim", "qk_head_dim", "original_max_position_embeddings"}),
)
