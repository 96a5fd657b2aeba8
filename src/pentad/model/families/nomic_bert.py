"""NomicBERT: BERT's norms around rotary attention and SwiGLU, without biases.

Its `config.json` has two spellings: the published one (`n_embd`) and that of `transformers` (`hidden_size`).
"""

from __future__ import annotations

import dataclasses
from typing import Final

from pentad.execution.positions import Rope
from pentad.execution.spec import ModelSpec
from pentad.model.families.base import Family
from pentad.model.families.describe import needs
from pentad.model.families.encoders import BERT_KEYS, Keys, config_classifier, config_encoder, gguf_encoder
from pentad.model.families.places import Names, fused_qkv
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_BASE: Final = 1000.0
_NO_BIASES: Final[frozenset[str]] = frozenset()
_PUBLISHED_KEYS = Keys(
    layers="n_layer",
    width="n_embd",
    heads="n_head",
    ffn_width="n_inner",
    context="n_positions",
    eps="layer_norm_epsilon",
    activation="activation_function",
)
GGUF_NAMES: Names = {
    **fused_qkv("blk.{i}.attn_qkv"),
    "embed": "token_embd",
    "token_types": "token_types",
    "embed_norm": "token_embd_norm",
    "layers.{i}.o": "blk.{i}.attn_output",
    "layers.{i}.attn_norm": "blk.{i}.attn_output_norm",
    "layers.{i}.gate": "blk.{i}.ffn_gate",
    "layers.{i}.up": "blk.{i}.ffn_up",
    "layers.{i}.down": "blk.{i}.ffn_down",
    "layers.{i}.ffn_norm": "blk.{i}.layer_output_norm",
}
CONFIG_NAMES: Names = {
    **fused_qkv("encoder.layers.{i}.attn.Wqkv"),
    "embed": "embeddings.word_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "embed_norm": "emb_ln",
    "layers.{i}.o": "encoder.layers.{i}.attn.out_proj",
    "layers.{i}.attn_norm": "encoder.layers.{i}.norm1",
    "layers.{i}.gate": "encoder.layers.{i}.mlp.fc12",
    "layers.{i}.up": "encoder.layers.{i}.mlp.fc11",
    "layers.{i}.down": "encoder.layers.{i}.mlp.fc2",
    "layers.{i}.ffn_norm": "encoder.layers.{i}.norm2",
}


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `nomic-bert`."""
    spec = gguf_encoder(
        fields, container, "nomic_bert", positions=None, gated=True, activation="silu", biases=_NO_BIASES
    )
    return _turned(spec, fields.number("rope.freq_base", _BASE))


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` nomic_bert."""
    published = fields.has("n_embd")
    if config_classifier(fields) is not None:
        fields.fail("architectures", "scores texts; NomicBERT is supported for embeddings")
    for key, needed in (("prenorm", False), ("use_rms_norm", False), ("qkv_proj_bias", False)):
        if fields.flag(key, needed) != needed:
            fields.fail(key, f"is {not needed}; {needed} is supported")
    if fields.integer("moe_every_n_layers", 0):
        fields.fail("moe_every_n_layers", "is not 0; experts of NomicBERT are not supported")
    if (share := fields.number("rotary_emb_fraction", 1.0)) != 1:
        fields.fail("rotary_emb_fraction", f"is {share}; 1 is supported")
    spec = config_encoder(
        fields,
        "nomic_bert",
        keys=_PUBLISHED_KEYS if published else BERT_KEYS,
        default_activation="silu",
        positions=None,
        gated=True,
        biases=_NO_BIASES,
        token_types=fields.integer("type_vocab_size", 2),
    )
    rope = fields.table("rope_parameters")
    needs(rope, "rope_type", "default")
    base = fields.number("rotary_emb_base", rope.number("rope_theta", _BASE))
    return _turned(spec, base)


def _turned(spec: ModelSpec, base: float) -> ModelSpec:
    spec = spec.with_attention(positions=Rope(base=base, dim=spec.head_dim))
    return dataclasses.replace(spec, family="nomic_bert")


_HARMLESS = """
head_dim dense_seq_output fused_bias_fc fused_dropout_add_ln scale_attn_weights n_positions
pad_vocab_size_multiple max_trained_positions tie_word_embeddings use_xentropy parallel_block_tied_norm
rotary_emb_scale_base
"""
FAMILY = Family(
    name="nomic_bert",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    optional_prefixes=("nomic_bert.",),
    harmless=frozenset(_HARMLESS.split()),
)
