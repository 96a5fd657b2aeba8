"""OLMoE: the Llama block with norms over all queries and all keys, and many small experts."""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.spec import ModelSpec
from pentad.model.families import experts, qwen3
from pentad.model.families.base import Family
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `olmoe`."""
    spec = qwen3.describe_gguf(fields, container)
    return _normed(experts.with_experts(spec, experts.gguf_experts(fields, normalised=False)))


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` olmoe."""
    if fields.has("clip_qkv"):
        fields.fail("clip_qkv", "is set; queries, keys and values that are cut are not supported")
    spec = qwen3.describe_config(fields)
    routed = Experts(
        count=fields.integer("num_experts", low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("num_experts_per_tok", low=1),
        expert=FeedForward(width=fields.integer("intermediate_size", low=1)),
        normalised=fields.flag("norm_topk_prob", False),
    )
    return _normed(experts.with_experts(spec, routed))


def _normed(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec.with_attention(qk_norm="all"), family="olmoe")


FAMILY = Family(
    name="olmoe",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=qwen3.GGUF_NAMES,
    config_names={
        **qwen3.CONFIG_NAMES,
        **experts.config_names("model.layers.{i}.mlp", "gate_proj", "up_proj", "down_proj"),
    },
)
