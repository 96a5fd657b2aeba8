"""Ernie 4.5 (dense): the Llama block whose rotary pairs are neighbours; biases everywhere or nowhere."""

from __future__ import annotations

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.gpt2 import EVERY_BIAS
from pentad.model.families.rotary import config_rope
from pentad.model.files.fields import Fields


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` ernie4_5."""
    return llama.describe_config(
        fields,
        family="ernie4_5",
        positions=lambda dim: config_rope(fields, dim, pairing="interleaved", base=500_000.0),
        biases=EVERY_BIAS if fields.flag("use_bias", False) else frozenset(),
        tied_head=fields.flag("tie_word_embeddings", True),
    )


FAMILY = Family(
    name="ernie4_5",
    describe_gguf=llama.describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=llama.CONFIG_NAMES,
)
