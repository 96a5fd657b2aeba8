"""Qwen2 and Qwen2.5 (dense): the Llama block with biases on queries, keys and values."""

from __future__ import annotations

from typing import Any

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import layer_kinds, with_windows
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

QKV = frozenset({"qkv"})


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `qwen2`, whose rows keep the published order."""
    return llama.describe_gguf(fields, container, family="qwen2", pairing="half", biases=QKV)


def describe_config(fields: Fields, *, family: str = "qwen2", **parts: Any) -> ModelSpec:
    """The spec of a `config.json` with `model_type` qwen2, or of one whose windows are spelt like its.

    Its `sliding_window` is a size that is used only if `use_sliding_window` is true, and then
    only from layer `max_window_layers` on.
    """
    spec = llama.describe_config(fields, family=family, **({"biases": QKV} | parts))
    first = fields.integer("max_window_layers", 28)
    window = fields.integer("sliding_window", 0)
    used = fields.flag("use_sliding_window", False)

    def kind(layer: int) -> str:
        return "sliding_attention" if used and window and layer >= first else "full_attention"

    return with_windows(spec, layer_kinds(fields, spec.layers, kind), window if used else None)


FAMILY = Family(
    name="qwen2",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=llama.CONFIG_NAMES,
)
