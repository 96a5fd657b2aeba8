"""Mistral, Ministral and Ministral 3: the Llama block, with a window over all layers or some of them."""

from __future__ import annotations

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import layer_kinds, with_windows
from pentad.model.files.fields import Fields


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` mistral, ministral or ministral3."""
    scaling = fields.table("rope_parameters")
    if scaling.number("llama_4_scaling_beta", 0.0) and scaling.has("original_max_position_embeddings"):
        _bounded(fields, scaling)
    spec = llama.describe_config(fields, family="mistral")
    window = fields.integer("sliding_window", 0)
    default = "sliding_attention" if window else "full_attention"
    return with_windows(spec, layer_kinds(fields, spec.layers, lambda _: default), window)


def _bounded(fields: Fields, scaling: Fields) -> None:
    """Ministral 3 lets queries grow beyond the trained length, which is not computed."""
    trained = scaling.integer("original_max_position_embeddings", low=1)
    if fields.integer("max_position_embeddings", trained) > trained:
        scaling.fail(
            "llama_4_scaling_beta",
            f"scales queries beyond {trained} tokens, which is not supported; "
            f"set max_position_embeddings to {trained} to use the model up to there",
        )


FAMILY = Family(
    name="mistral",
    describe_gguf=llama.describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=llama.CONFIG_NAMES,
    harmless=frozenset(),
)
