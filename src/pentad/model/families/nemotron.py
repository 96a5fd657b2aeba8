"""Nemotron (dense): LayerNorm with scales less one, part of a head turned, a squared ReLU without a gate."""

from __future__ import annotations

from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import activation
from pentad.model.families.places import Names, plus_one
from pentad.model.families.rotary import config_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_NORMS = {
    "final_norm": "model.norm",
    "layers.{i}.attn_norm": "model.layers.{i}.input_layernorm",
    "layers.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm",
}
CONFIG_NAMES: Names = {**llama.CONFIG_NAMES, **{key: plus_one(name) for key, name in _NORMS.items()}}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` nemotron."""
    return llama.describe_config(
        fields,
        family="nemotron",
        positions=lambda dim: config_rope(fields, dim, turned=0.5),
        norm=Norm(kind="layer", eps=fields.number("norm_eps", 1e-5)),
        activation=activation(fields, default="relu2"),
        gated=False,
    )


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `nemotron`, whose scales are whole."""
    return llama.describe_gguf(
        fields,
        container,
        family="nemotron",
        pairing="half",
        norm="layer",
        activation="relu_squared",
        gated=False,
    )


FAMILY = Family(
    name="nemotron",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=CONFIG_NAMES,
)
