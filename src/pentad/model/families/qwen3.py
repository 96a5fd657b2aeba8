"""Qwen3 (dense): the Qwen2 block with norms of query and key heads in place of biases."""

from __future__ import annotations

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama, qwen2
from pentad.model.families.base import Family
from pentad.model.families.places import Names
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

GGUF_NAMES: Names = {
    **llama.GGUF_NAMES,
    "layers.{i}.q_norm": "blk.{i}.attn_q_norm",
    "layers.{i}.k_norm": "blk.{i}.attn_k_norm",
}
CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    "layers.{i}.q_norm": "model.layers.{i}.self_attn.q_norm",
    "layers.{i}.k_norm": "model.layers.{i}.self_attn.k_norm",
}


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `qwen3`, whose rows keep the published order."""
    return llama.describe_gguf(fields, container, family="qwen3", pairing="half", qk_norm=True)


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` qwen3; its windows are spelt as Qwen2's are."""
    biases = frozenset({"qkv", "out"}) if fields.flag("attention_bias", False) else frozenset()
    return qwen2.describe_config(fields, family="qwen3", qk_norm=True, biases=biases)


FAMILY = Family(
    name="qwen3",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
)
