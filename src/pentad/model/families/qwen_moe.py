"""Qwen2-MoE and Qwen3-MoE: Qwen's blocks with many small experts; Qwen2's has a weighed shared one."""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.spec import ModelSpec
from pentad.model.families import experts, llama, qwen2, qwen3
from pentad.model.families.base import Family
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container


def describe_qwen2_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `qwen2moe`."""
    width = fields.integer("expert_shared_feed_forward_length", low=1)
    routed = dataclasses.replace(
        experts.gguf_experts(fields, normalised=False), shared=FeedForward(width=width), shared_gate=True
    )
    return _as("qwen2_moe", experts.with_experts(qwen2.describe_gguf(fields, container), routed))


def describe_qwen3_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `qwen3moe`."""
    spec = qwen3.describe_gguf(fields, container)
    return _as("qwen3_moe", experts.with_experts(spec, experts.gguf_experts(fields)))


def describe_qwen2_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` qwen2_moe."""
    width = fields.integer("shared_expert_intermediate_size", low=1)
    routed = dataclasses.replace(_config_experts(fields), shared=FeedForward(width=width), shared_gate=True)
    if not fields.flag("qkv_bias", True):
        fields.fail("qkv_bias", "is false; Qwen2-MoE with biases is supported")
    spec = experts.with_experts(qwen2.describe_config(fields), routed, _sparse_layers(fields))
    return _as("qwen2_moe", spec)


def describe_qwen3_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` qwen3_moe."""
    spec = qwen3.describe_config(fields)
    return _as("qwen3_moe", experts.with_experts(spec, _config_experts(fields), _sparse_layers(fields)))


def _config_experts(fields: Fields) -> Experts:
    key = "num_experts" if fields.has("num_experts") else "num_local_experts"
    return Experts(
        count=fields.integer(key, low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("num_experts_per_tok", low=1),
        expert=FeedForward(width=fields.integer("moe_intermediate_size", low=1)),
        normalised=fields.flag("norm_topk_prob", False),
    )


def _sparse_layers(fields: Fields) -> list[int]:
    """Layers with experts: every `decoder_sparse_step`-th one that `mlp_only_layers` doesn't name."""
    step = fields.integer("decoder_sparse_step", 1, low=1)
    dense = fields.value("mlp_only_layers", None) or []
    if not isinstance(dense, list):
        fields.fail("mlp_only_layers", "must be a list of layers")
    return [i for i in range(fields.integer("num_hidden_layers")) if i not in dense and (i + 1) % step == 0]


def _as(family: str, spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, family=family)


_EXPERT_NAMES = experts.config_names("model.layers.{i}.mlp", "gate_proj", "up_proj", "down_proj")

QWEN2 = Family(
    name="qwen2_moe",
    describe_gguf=describe_qwen2_gguf,
    describe_config=describe_qwen2_config,
    gguf_names=llama.GGUF_NAMES,
    config_names={
        **llama.CONFIG_NAMES,
        **_EXPERT_NAMES,
        **experts.shared_names("model.layers.{i}.mlp.shared_expert"),
        "layers.{i}.shared_gate": "model.layers.{i}.mlp.shared_expert_gate",
    },
)
QWEN3 = Family(
    name="qwen3_moe",
    describe_gguf=describe_qwen3_gguf,
    describe_config=describe_qwen3_config,
    gguf_names=qwen3.GGUF_NAMES,
    config_names={**qwen3.CONFIG_NAMES, **_EXPERT_NAMES},
)
