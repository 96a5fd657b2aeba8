"""Phi-3.5-MoE: the Llama block with layer norms and biases, and its experts chosen one by one."""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families import experts, llama
from pentad.model.families.base import Family
from pentad.model.families.describe import config_decoder, needs
from pentad.model.families.rotary import config_rope
from pentad.model.files.fields import Fields

_MIXED = "model.layers.{i}.block_sparse_moe"


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` phimoe."""
    needs(fields, "hidden_act", "silu")
    spec = config_decoder(
        fields,
        "phimoe",
        positions=lambda dim: config_rope(fields, dim, base=1e6),
        norm=Norm(kind="layer", eps=fields.number("rms_norm_eps", 1e-5)),
        tied_head=fields.flag("tie_word_embeddings", False),
        biases=frozenset({"qkv", "out"}) if fields.flag("attention_bias", False) else frozenset(),
        window=fields.integer("sliding_window", 0) or None,
    )
    routed = Experts(
        count=fields.integer("num_local_experts", low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("num_experts_per_tok", 2, low=1),
        expert=FeedForward(width=spec.ffn_width),
        scores="one_by_one",
        rivals_within=2 * fields.number("router_jitter_noise", 0.01),
    )
    assert spec.head is not None
    head = dataclasses.replace(spec.head, bias=fields.flag("lm_head_bias", False))
    return dataclasses.replace(experts.with_experts(spec, routed), head=head)


FAMILY = Family(
    name="phimoe",
    describe_config=describe_config,
    config_names={**llama.CONFIG_NAMES, **experts.config_names(_MIXED, "w1", "w3", "w2")},
    harmless=frozenset({"input_jitter_noise", "original_max_position_embeddings"}),
)
