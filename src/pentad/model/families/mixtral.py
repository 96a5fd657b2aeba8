"""Mixtral: the Llama block with experts in the place of its feed-forward."""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.spec import ModelSpec
from pentad.model.families import experts, llama
from pentad.model.families.base import Family
from pentad.model.files.fields import Fields


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` mixtral."""
    spec = llama.describe_config(fields, window=fields.integer("sliding_window", 0) or None)
    routed = Experts(
        count=fields.integer("num_local_experts", low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("num_experts_per_tok", low=1),
        expert=FeedForward(width=spec.ffn_width),
        scores="softmax_chosen",
    )
    return dataclasses.replace(experts.with_experts(spec, routed), family="mixtral")


_HARMLESS = """
router_jitter_noise
"""
FAMILY = Family(
    name="mixtral",
    describe_gguf=llama.describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names={
        **llama.CONFIG_NAMES,
        **experts.config_names("model.layers.{i}.block_sparse_moe", "w1", "w3", "w2"),
    },
    harmless=frozenset(_HARMLESS.split()),
)
