"""Granite 3 with experts: the Llama block with scales on embeddings, scores, parts and logits."""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.spec import Head, ModelSpec
from pentad.model.families import experts, llama
from pentad.model.families.base import Family
from pentad.model.families.places import Place, Rows
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `granitemoe`."""
    spec = llama.describe_gguf(fields, container)
    routed = experts.gguf_experts(fields, scores="softmax_chosen", normalised=False)
    scales = {
        "embedding": fields.number("embedding_scale", 1.0),
        "scores": fields.number("attention.scale", 0.0),
        "parts": fields.number("residual_scale", 1.0),
        "logits": fields.number("logit_scale", 1.0),
    }
    return _scaled(experts.with_experts(spec, routed), scales)


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` granitemoe."""
    spec = llama.describe_config(fields)
    routed = Experts(
        count=fields.integer("num_local_experts", low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("num_experts_per_tok", low=1),
        expert=FeedForward(width=fields.integer("intermediate_size", low=1)),
        scores="softmax_chosen",
    )
    scales = {
        "embedding": fields.number("embedding_multiplier", 1.0),
        "scores": fields.number("attention_multiplier", 1.0),
        "parts": fields.number("residual_multiplier", 1.0),
        "logits": fields.number("logits_scaling", 1.0),
    }
    return _scaled(experts.with_experts(spec, routed), scales)


def _scaled(spec: ModelSpec, scales: dict[str, float]) -> ModelSpec:
    """Logits are divided by their scale; scores of a scale of 0 have the usual one."""
    spec = spec.with_attention(scale=scales["scores"] or None)
    spec = spec.with_blocks(lambda block: dataclasses.replace(block, residual_scale=scales["parts"]))
    head = Head(tied=spec.tied_head, scale=1 / scales["logits"])
    return dataclasses.replace(spec, family="granite_moe", embedding_scale=scales["embedding"], head=head)


_FUSED = "model.layers.{i}.block_sparse_moe.input_linear"
FAMILY = Family(
    name="granite_moe",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names={
        **llama.CONFIG_NAMES,
        "layers.{i}.router": "model.layers.{i}.block_sparse_moe.router.layer",
        "layers.{i}.experts.gate": Place(
            name=_FUSED, steps=(Rows(start=lambda _: 0, count=experts.expert_width),)
        ),
        "layers.{i}.experts.up": Place(
            name=_FUSED, steps=(Rows(start=experts.expert_width, count=experts.expert_width),)
        ),
        "layers.{i}.experts.down": "model.layers.{i}.block_sparse_moe.output_linear",
    },
)
