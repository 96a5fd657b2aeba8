"""Granite 3 (dense) and MiniCPM: the Llama block with factors of embeddings, scores, sums and logits."""

from __future__ import annotations

import dataclasses

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container


def _scaled(spec: ModelSpec, embedding: float, residual: float, logits: float) -> ModelSpec:
    """With factors of embeddings, of what each part adds, and of logits."""
    scaled = spec.with_blocks(lambda block: dataclasses.replace(block, residual_scale=residual))
    head = scaled.head
    assert head is not None
    return dataclasses.replace(
        scaled, embedding_scale=embedding, head=dataclasses.replace(head, scale=logits)
    )


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` granite."""
    spec = llama.describe_config(fields, family="granite")
    spec = spec.with_attention(scale=fields.number("attention_multiplier", 1.0))
    return _scaled(
        spec,
        fields.number("embedding_multiplier", 1.0),
        fields.number("residual_multiplier", 1.0),
        1 / fields.number("logits_scaling", 1.0),
    )


def describe_minicpm(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` minicpm, scaled by depth and width (Hu et al. 2024)."""
    spec = llama.describe_config(fields, family="minicpm")
    return _scaled(
        spec,
        fields.number("scale_emb", 1.0),
        fields.number("scale_depth", 1.0) / spec.layers**0.5,
        fields.number("dim_model_base", spec.width) / spec.width,
    )


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `granite` or `minicpm`."""
    spec = llama.describe_gguf(fields, container, family="granite")
    scale = fields.number("attention.scale", 0.0)
    spec = spec.with_attention(scale=scale or None)
    return _scaled(
        spec,
        fields.number("embedding_scale", 1.0),
        fields.number("residual_scale", 1.0),
        1 / fields.number("logit_scale", 1.0),
    )


FAMILY = Family(
    name="granite",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=llama.CONFIG_NAMES,
)
MINICPM = dataclasses.replace(FAMILY, name="minicpm", describe_config=describe_minicpm)
