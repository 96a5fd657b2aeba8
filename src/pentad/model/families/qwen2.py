"""Qwen2 and Qwen2.5 (dense): the Llama block with biases on queries, keys and values."""

from __future__ import annotations

import dataclasses

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `qwen2`, whose rows keep the published order."""
    spec = llama.describe_gguf(fields, container)
    rope = spec.rope
    assert rope is not None
    positions = dataclasses.replace(rope, pairing="half")
    return dataclasses.replace(spec, family="qwen2").with_attention(positions=positions, qkv_bias=True)


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` qwen2.

    Its `sliding_window` is a size that is used only if `use_sliding_window` is true, and then
    only from layer `max_window_layers` on.
    """
    spec = dataclasses.replace(llama.describe_config(fields), family="qwen2").with_attention(qkv_bias=True)
    wide = spec.with_attention(window=None).blocks
    first = (
        fields.integer("max_window_layers", 28) if fields.flag("use_sliding_window", False) else spec.layers
    )
    blocks = (*wide[:first], *spec.blocks[first:])
    return dataclasses.replace(spec, stack=dataclasses.replace(spec.stack, blocks=blocks))


FAMILY = Family(
    name="qwen2",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=llama.CONFIG_NAMES,
)
