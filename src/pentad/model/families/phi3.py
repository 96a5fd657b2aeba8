"""Phi 3, 3.5 and 4: the Llama block with fused queries, keys and values, fused gate and up, and LongRoPE."""

from __future__ import annotations

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.places import Names, fused_qkv, halves
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_PAIR = ("layers.{i}.gate", "layers.{i}.up")
GGUF_NAMES: Names = {
    **llama.GGUF_NAMES,
    **fused_qkv("blk.{i}.attn_qkv"),
    **halves("blk.{i}.ffn_up", *_PAIR),
}
CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    **fused_qkv("model.layers.{i}.self_attn.qkv_proj"),
    **halves("model.layers.{i}.mlp.gate_up_proj", *_PAIR),
}


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `phi3`."""
    return llama.describe_gguf(fields, container, family="phi3", pairing="half", biases=frozenset())


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` phi3 (Phi 4 too)."""
    return llama.describe_config(fields, family="phi3", window=fields.integer("sliding_window", 0) or None)


FAMILY = Family(
    name="phi3",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=frozenset({"original_max_position_embeddings"}),
)
