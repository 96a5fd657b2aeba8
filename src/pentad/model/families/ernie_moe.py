"""Ernie 4.5 with experts: neighbours turn together, some layers are dense, two experts are always used."""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.mixers import Attention
from pentad.execution.positions import Rope
from pentad.execution.spec import ModelSpec
from pentad.model.families import experts, llama
from pentad.model.families.base import Family
from pentad.model.families.places import Place, Reshaped
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_LEAST_SUM = 1e-6
"""Weights of chosen experts never sum to less."""


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `ernie4_5-moe`."""
    routed = experts.gguf_experts(fields, router_bias="choice")
    first = fields.integer("leading_dense_block_count", 0)
    step = fields.integer("interleave_moe_layer_step", 1, low=1)
    shown = dataclasses.replace(fields, values={**fields.values, "expert_count": 0})
    spec = llama.describe_gguf(shown, container)
    layers = [i for i in range(first, spec.layers) if (i + 1) % step == 0]
    return dataclasses.replace(experts.with_experts(spec, routed, layers), family="ernie4_5_moe")


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` ernie4_5_moe."""
    if fields.flag("use_bias", False):
        fields.fail("use_bias", "is true; Ernie models with biases are not supported")
    if (least := fields.number("moe_norm_min", 1e-12)) > _LEAST_SUM:
        fields.fail("moe_norm_min", f"is {least}, which would bear on the weights of experts")
    spec = llama.describe_config(fields)
    mixer = spec.blocks[0].mixer
    assert isinstance(mixer, Attention)
    assert isinstance(mixer.positions, Rope)
    spec = spec.with_attention(positions=dataclasses.replace(mixer.positions, pairing="interleaved"))
    width = fields.integer("moe_intermediate_size", low=1)
    shared = width * fields.integer("moe_num_shared_experts", 0)
    routed = Experts(
        count=fields.integer("moe_num_experts", low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("moe_k", low=1),
        expert=FeedForward(width=width),
        shared=FeedForward(width=shared) if shared else None,
        normalised=True,
        router_bias="choice",
    )
    first = fields.integer("moe_layer_start_index", 0)
    step = fields.integer("moe_layer_interval", 1, low=1)
    end = fields.integer("moe_layer_end_index", spec.layers - 1, low=-1)
    last = spec.layers - 1 if end == -1 else min(end, spec.layers - 1)
    layers = [i for i in range(first, last + 1) if (i + 1) % step == 0]
    return dataclasses.replace(experts.with_experts(spec, routed, layers), family="ernie4_5_moe")


_HARMLESS = """
moe_capacity moe_gate moe_use_aux_free moe_norm_gate_logits use_rmsnorm
"""
FAMILY = Family(
    name="ernie4_5_moe",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names={**llama.GGUF_NAMES, **experts.CHOICE_BIAS},
    config_names={
        **llama.CONFIG_NAMES,
        **experts.config_names("model.layers.{i}.mlp", "gate_proj", "up_proj", "down_proj"),
        **experts.shared_names("model.layers.{i}.mlp.shared_experts"),
        "layers.{i}.router.bias": Place(
            name="model.layers.{i}.mlp.moe_statics.e_score_correction_bias",
            steps=(Reshaped(to=lambda site: (experts.expert_count(site),)),),
            suffix="",
        ),
    },
    harmless=frozenset(_HARMLESS.split()),
)
