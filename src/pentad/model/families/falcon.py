"""Falcon: 7B (one key head, one norm), 40B and 180B (groups of rows, two norms), 11B (one), RW (ALiBi)."""

from __future__ import annotations

from pentad.execution.positions import Alibi
from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families.base import Family
from pentad.model.families.describe import ConfigKeys, activation, config_decoder, gguf_decoder
from pentad.model.families.gpt2 import GGUF_NAMES as FUSED_NAMES
from pentad.model.families.places import Name, Names, fused_qkv, headwise_qkv
from pentad.model.families.rotary import config_rope, gguf_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_FUSED = "h.{i}.self_attention.query_key_value"
_COMMON: dict[str, Name] = {
    "embed": "word_embeddings",
    "final_norm": "ln_f",
    "head": "lm_head",
    "layers.{i}.o": "h.{i}.self_attention.dense",
    "layers.{i}.up": "h.{i}.mlp.dense_h_to_4h",
    "layers.{i}.down": "h.{i}.mlp.dense_4h_to_h",
}
_ONE_NORM: dict[str, Name] = {
    "layers.{i}.attn_norm": "h.{i}.input_layernorm",
    "layers.{i}.ffn_norm": "h.{i}.post_attention_layernorm",
}
_TWO_NORMS: dict[str, Name] = {
    "layers.{i}.attn_norm": "h.{i}.ln_attn",
    "layers.{i}.ffn_norm": "h.{i}.ln_mlp",
}


def config_names(_: ModelSpec, fields: Fields) -> Names:
    """Forms differ in how rows are fused and in their norms."""
    grouped = fields.flag("new_decoder_architecture", False)
    one_key_head = fields.flag("multi_query", True) and not grouped
    rows = fused_qkv(_FUSED) if one_key_head else headwise_qkv(_FUSED)
    return {**_COMMON, **rows, **(_TWO_NORMS if _norms(fields) == 2 else _ONE_NORM)}


def gguf_names(spec: ModelSpec, _: Fields) -> Names:
    """With two norms, the one that the feed-forward reads has the usual name."""
    if spec.blocks[0].shared_norm:
        return FUSED_NAMES
    norms: dict[str, Name] = {
        "layers.{i}.attn_norm": "blk.{i}.attn_norm_2",
        "layers.{i}.ffn_norm": "blk.{i}.attn_norm",
    }
    return {**FUSED_NAMES, **norms}


def _norms(fields: Fields) -> int:
    """Of a layer whose parts are parallel."""
    grouped = fields.flag("new_decoder_architecture", False)
    return fields.integer("num_ln_in_parallel_attn", 2 if grouped else 1, low=1, high=2)


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` falcon."""
    grouped = fields.flag("new_decoder_architecture", False)
    parallel = fields.flag("parallel_attn", True) or grouped
    keys = ConfigKeys(
        layers="n_layer" if fields.has("n_layer") else "num_hidden_layers",
        heads="n_head" if fields.has("n_head") else "num_attention_heads",
        kv_heads="n_head_kv" if fields.has("n_head_kv") else "num_kv_heads",
        head_dim=None,
        ffn_width="ffn_hidden_size",
    )
    one_key_head = fields.flag("multi_query", True) and not grouped
    sizes = {} if not one_key_head else {"kv_heads": 1}
    biased = fields.flag("bias", False)
    spec = config_decoder(
        fields,
        "falcon",
        keys=keys,
        **sizes,
        positions=None if fields.flag("alibi", False) else lambda dim: config_rope(fields, dim),
        norm=Norm(kind="layer", eps=fields.number("layer_norm_epsilon", 1e-5)),
        activation=activation(fields, "activation", "gelu"),
        gated=False,
        biases=frozenset({"qkv", "out", "ffn"}) if biased else frozenset(),
        parallel_block=parallel,
        shared_norm=parallel and _norms(fields) == 1,
        tied_head=fields.flag("tie_word_embeddings", True),
    )
    if not fields.flag("alibi", False):
        return spec
    return spec.with_attention(positions=Alibi(scale=spec.head_dim**-0.5))


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `falcon`, whose fused rows are all queries, keys, values."""
    two = "blk.0.attn_norm_2.weight" in container.tensors
    return gguf_decoder(
        fields,
        container,
        "falcon",
        norm="layer",
        positions=lambda dim: gguf_rope(fields, container, dim, pairing="half"),
        activation="gelu",
        gated=False,
        parallel_block=True,
        shared_norm=not two,
    )


FAMILY = Family(
    name="falcon",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=gguf_names,
    config_names=config_names,
    optional_prefixes=("transformer.",),
    harmless=frozenset({"num_kv_heads", "max_position_embeddings", "rope_theta", "rope_parameters"}),
)
