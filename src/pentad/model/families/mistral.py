"""Mistral, Ministral and Ministral 3: the Llama block, with a window over all layers or some of them."""

from __future__ import annotations

from pentad.execution.positions import Growth
from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import layer_kinds, with_windows
from pentad.model.files.fields import Fields


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` mistral, ministral or ministral3."""
    spec = llama.describe_config(fields, family="mistral")
    scaling = fields.table("rope_parameters")
    if beta := scaling.number("llama_4_scaling_beta", 0.0):
        period = scaling.integer("original_max_position_embeddings", low=1)
        spec = spec.with_attention(growth=Growth(weight=beta, period=period))
    window = fields.integer("sliding_window", 0)
    default = "sliding_attention" if window else "full_attention"
    return with_windows(spec, layer_kinds(fields, spec.layers, lambda _: default), window)


FAMILY = Family(
    name="mistral",
    describe_gguf=llama.describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=llama.CONFIG_NAMES,
)
