"""Qwen2 and Qwen2.5 (dense): the Llama block with biases on queries, keys and values."""

from __future__ import annotations

import dataclasses

from pentad.execution.spec import ModelSpec, Rope
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `qwen2`, whose rows keep the published order."""
    spec = llama.describe_gguf(fields, container)
    assert isinstance(spec.positions, Rope)
    positions = dataclasses.replace(spec.positions, pairing="half")
    return dataclasses.replace(spec, family="qwen2", positions=positions, biases=frozenset({"qkv"}))


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` qwen2.

    Its `sliding_window` is a size that is used only if `use_sliding_window` is true, and then
    only from layer `max_window_layers` on.
    """
    spec = llama.describe_config(fields)
    layers: tuple[int, ...] | None = None
    window = spec.window if fields.flag("use_sliding_window", False) else None
    if window is not None:
        layers = tuple(range(fields.integer("max_window_layers", 28), spec.layers))
        window = window if layers else None
    return dataclasses.replace(
        spec,
        family="qwen2",
        biases=frozenset({"qkv"}),
        window=window,
        window_layers=layers if window is not None else None,
    )


FAMILY = Family(
    name="qwen2",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=llama.CONFIG_NAMES,
)
