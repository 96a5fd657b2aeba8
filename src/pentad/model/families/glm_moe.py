"""GLM-4.5 and 4.6: half-turned heads, the first layers dense, experts chosen with a bias, one always used."""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.mixers import Attention
from pentad.execution.positions import Rope
from pentad.execution.spec import ModelSpec
from pentad.model.families import experts, llama, qwen2, qwen3
from pentad.model.families.base import Family
from pentad.model.families.places import Place
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `glm4moe`; layers that draft are left out."""
    layers = fields.integer("block_count", low=1) - fields.integer("nextn_predict_layers", 0)
    shown = dataclasses.replace(fields, values={**fields.values, "block_count": layers, "expert_count": 0})
    normed = "blk.0.attn_q_norm.weight" in container.tensors
    spec = qwen2.describe_gguf(shown, container).with_attention(
        qkv_bias="blk.0.attn_q.bias" in container.tensors, qk_norm="head" if normed else None
    )
    routed = experts.gguf_experts(fields, scores="sigmoid", router_bias="choice")
    return _finished(spec, routed, fields.integer("leading_dense_block_count", 0))


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` glm4_moe."""
    plain = dataclasses.replace(fields, values={**fields.values, "attention_bias": False})
    table = fields.table("rope_parameters")
    share = table.number("partial_rotary_factor", fields.number("partial_rotary_factor", 0.5))
    spec = llama.describe_config(plain)

    def turned(mixer: Attention) -> Rope:
        assert isinstance(mixer.positions, Rope)
        return dataclasses.replace(mixer.positions, dim=int(mixer.head_dim * share))

    mixer = spec.blocks[0].mixer
    assert isinstance(mixer, Attention)
    spec = spec.with_attention(
        positions=turned(mixer),
        qkv_bias=fields.flag("attention_bias", False),
        qk_norm="head" if fields.flag("use_qk_norm", False) else None,
    )
    width = fields.integer("moe_intermediate_size", low=1)
    shared = width * fields.integer("n_shared_experts", 1)
    routed = Experts(
        count=fields.integer("n_routed_experts", low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("num_experts_per_tok", low=1),
        expert=FeedForward(width=width),
        shared=FeedForward(width=shared) if shared else None,
        scores="sigmoid",
        normalised=fields.flag("norm_topk_prob", True),
        router_bias="choice",
        weight_scale=fields.number("routed_scaling_factor", 1.0),
        groups=fields.integer("n_group", 1, low=1),
        chosen_groups=fields.integer("topk_group", 1, low=1),
    )
    return _finished(spec, routed, fields.integer("first_k_dense_replace", 1))


def _finished(spec: ModelSpec, routed: Experts, dense: int) -> ModelSpec:
    found = experts.with_experts(spec, routed, range(dense, spec.layers))
    return dataclasses.replace(found, family="glm4_moe")


_HARMLESS = """
num_nextn_predict_layers
"""
FAMILY = Family(
    name="glm4_moe",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names={
        **qwen3.GGUF_NAMES,
        **experts.CHOICE_BIAS,
        "layers.{i}.ffn_norm": "blk.{i}.post_attention_norm",
    },
    config_names={
        **qwen3.CONFIG_NAMES,
        **experts.config_names("model.layers.{i}.mlp", "gate_proj", "up_proj", "down_proj"),
        **experts.shared_names("model.layers.{i}.mlp.shared_experts"),
        "layers.{i}.router.bias": Place(name="model.layers.{i}.mlp.gate.e_score_correction_bias", suffix=""),
    },
    harmless=frozenset(_HARMLESS.split()),
)
