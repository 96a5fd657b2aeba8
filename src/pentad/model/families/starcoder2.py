"""StarCoder 2: LayerNorm, grouped keys, RoPE, a window over all layers, a plain GELU block with biases."""

from __future__ import annotations

from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.gpt2 import EVERY_BIAS
from pentad.model.families.places import Names
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    "layers.{i}.up": "model.layers.{i}.mlp.c_fc",
    "layers.{i}.down": "model.layers.{i}.mlp.c_proj",
}


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `starcoder2`."""
    return llama.describe_gguf(
        fields,
        container,
        family="starcoder2",
        pairing="half",
        norm="layer",
        activation="gelu_tanh",
        gated=False,
        biases=EVERY_BIAS,
    )


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` starcoder2."""
    biased = fields.flag("use_bias", True)
    return llama.describe_config(
        fields,
        family="starcoder2",
        norm=Norm(kind="layer", eps=fields.number("norm_epsilon", 1e-5)),
        gated=False,
        biases=EVERY_BIAS if biased else frozenset(),
        window=fields.integer("sliding_window", 0) or None,
        tied_head=fields.flag("tie_word_embeddings", True),
    )


FAMILY = Family(
    name="starcoder2",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=frozenset({"mlp_type", "norm_type"}),
)
