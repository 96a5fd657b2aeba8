"""GPT-2: LayerNorm, learned positions, a plain GELU block; folders hold its matrices as [in, out]."""

from __future__ import annotations

import dataclasses

from pentad.execution.spec import Learned, ModelSpec, Norm
from pentad.model.families.base import Family
from pentad.model.families.describe import GPT2_KEYS, activation, config_decoder, gguf_decoder, needs
from pentad.model.families.places import Names, Place, Transposed, fused_qkv
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

EVERY_BIAS = frozenset({"qkv", "out", "ffn"})
GGUF_NAMES: Names = {
    "embed": "token_embd",
    "positions": "position_embd",
    "final_norm": "output_norm",
    "head": "output",
    "layers.{i}.attn_norm": "blk.{i}.attn_norm",
    **fused_qkv("blk.{i}.attn_qkv"),
    "layers.{i}.o": "blk.{i}.attn_output",
    "layers.{i}.ffn_norm": "blk.{i}.ffn_norm",
    "layers.{i}.up": "blk.{i}.ffn_up",
    "layers.{i}.down": "blk.{i}.ffn_down",
}


def _turned(name: str) -> Place:
    return Place(name=name, steps=(Transposed(),))


CONFIG_NAMES: Names = {
    "embed": "wte",
    "positions": Place(name="wpe"),
    "final_norm": "ln_f",
    "head": "lm_head",
    "layers.{i}.attn_norm": "h.{i}.ln_1",
    **fused_qkv("h.{i}.attn.c_attn", Transposed()),
    "layers.{i}.o": _turned("h.{i}.attn.c_proj"),
    "layers.{i}.ffn_norm": "h.{i}.ln_2",
    "layers.{i}.up": _turned("h.{i}.mlp.c_fc"),
    "layers.{i}.down": _turned("h.{i}.mlp.c_proj"),
}


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `gpt2`."""
    positions = Learned(max_positions=fields.integer("context_length", low=1))
    return gguf_decoder(
        fields,
        container,
        "gpt2",
        norm="layer",
        positions=positions,
        activation="gelu_tanh",
        gated=False,
        biases=EVERY_BIAS,
    )


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` gpt2."""
    needs(fields, "add_cross_attention", False)
    spec = config_decoder(
        fields,
        "gpt2",
        keys=GPT2_KEYS,
        positions=Learned(max_positions=fields.integer("n_positions", 1024, low=1)),
        norm=Norm(kind="layer", eps=fields.number("layer_norm_epsilon", 1e-5)),
        activation=activation(fields, "activation_function", "gelu_new"),
        gated=False,
        biases=EVERY_BIAS,
        tied_head=fields.flag("tie_word_embeddings", True),
    )
    if not fields.flag("scale_attn_weights", True):
        spec = spec.with_attention(scale=1.0)
    if not fields.flag("scale_attn_by_inverse_layer_idx", False):
        return spec
    return _scaled_by_depth(spec)


def _scaled_by_depth(spec: ModelSpec) -> ModelSpec:
    """Scores of layer i are divided by i + 1 (Mistral's GPT-2)."""
    scale = spec.head_dim**-0.5
    blocks = tuple(spec.with_attention(scale=scale / (i + 1)).blocks[i] for i in range(spec.layers))
    return dataclasses.replace(spec, stack=dataclasses.replace(spec.stack, blocks=blocks))


FAMILY = Family(
    name="gpt2",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    optional_prefixes=("transformer.",),
    harmless=frozenset({"reorder_and_upcast_attn", "n_ctx"}),
)
