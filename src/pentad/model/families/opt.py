"""OPT and Galactica: LayerNorm, learned positions from row 2 on, a plain ReLU or GELU block."""

from __future__ import annotations

from typing import Literal

from pentad.execution.spec import Learned, ModelSpec, Norm
from pentad.model.families.base import Family
from pentad.model.families.describe import ConfigKeys, activation, config_decoder, needs
from pentad.model.families.places import Constant, Name, Names
from pentad.model.files.fields import Fields

_OFFSET = 2
"""The first rows of the table belong to padding (the paper's table of geometries says RoPE; it has none)."""
_KEYS = ConfigKeys(ffn_width="ffn_dim", kv_heads=None, head_dim=None)
_NORMS: dict[str, Name] = {
    "final_norm": "decoder.final_layer_norm",
    "layers.{i}.attn_norm": "decoder.layers.{i}.self_attn_layer_norm",
    "layers.{i}.ffn_norm": "decoder.layers.{i}.final_layer_norm",
}
_MATRICES: dict[str, Name] = {
    "embed": "decoder.embed_tokens",
    "positions": "decoder.embed_positions",
    "head": "lm_head",
    "layers.{i}.q": "decoder.layers.{i}.self_attn.q_proj",
    "layers.{i}.k": "decoder.layers.{i}.self_attn.k_proj",
    "layers.{i}.v": "decoder.layers.{i}.self_attn.v_proj",
    "layers.{i}.o": "decoder.layers.{i}.self_attn.out_proj",
    "layers.{i}.up": "decoder.layers.{i}.fc1",
    "layers.{i}.down": "decoder.layers.{i}.fc2",
}


def config_names(_: ModelSpec, fields: Fields) -> Names:
    """Norms have scales unless the config says otherwise."""
    if fields.flag("layer_norm_elementwise_affine", True):
        return {**_MATRICES, **_NORMS}
    return {**_MATRICES, **dict.fromkeys(_NORMS, Constant(value=1.0))}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` opt."""
    width = fields.integer("hidden_size", low=1)
    needs(fields, "word_embed_proj_dim", width)
    needs(fields, "_remove_final_layer_norm", False)
    placement: Literal["pre", "post"] = "pre" if fields.flag("do_layer_norm_before", True) else "post"
    biased = fields.flag("enable_bias", True)
    return config_decoder(
        fields,
        "opt",
        keys=_KEYS,
        positions=Learned(max_positions=fields.integer("max_position_embeddings", 2048), offset=_OFFSET),
        norm=Norm(kind="layer", bias=fields.flag("layer_norm_elementwise_affine", True)),
        placement=placement,
        activation=activation(fields, "activation_function", "relu"),
        gated=False,
        biases=frozenset({"qkv", "out", "ffn"}) if biased else frozenset(),
        tied_head=fields.flag("tie_word_embeddings", True),
    )


FAMILY = Family(
    name="opt",
    describe_config=describe_config,
    config_names=config_names,
    optional_prefixes=("model.",),
    harmless=frozenset({"output_projection", "share_decoder_input_output_embed", "learned_embeddings"}),
)
