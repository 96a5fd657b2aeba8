"""Switch Transformers: T5 whose every other layer sends each token to one of many feed-forwards.

The reference drops tokens beyond `expert_capacity` of an expert in a text; here none is dropped, so longer
texts than that can get other answers than they get there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.mixers import Norm
from pentad.execution.positions import RelativeBuckets
from pentad.execution.spec import Head, ModelSpec, Stack
from pentad.model.families import t5
from pentad.model.families.base import Family
from pentad.model.families.describe import activation, needs
from pentad.model.families.experts import MAX_EXPERTS, expert_count
from pentad.model.families.places import FirstOf, Name, Names, Place
from pentad.model.files.fields import MAX_LAYERS, Fields


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` switch_transformers."""
    needs(fields, "router_bias", False)
    needs(fields, "is_gated_act", False)
    width = fields.integer("d_model", low=1)
    layers = fields.integer("num_layers", low=1, high=MAX_LAYERS)
    decoder_layers = fields.integer("num_decoder_layers", layers, low=1, high=MAX_LAYERS)
    inner = FeedForward(
        width=fields.integer("d_ff", low=1),
        activation=activation(fields, "dense_act_fn", "relu"),
        gated=False,
    )
    shape = t5.Shape(
        width=width,
        attention=t5.attention(fields.integer("num_heads", low=1), fields.integer("d_kv", low=1)),
        inner=inner,
        norm=Norm(eps=fields.number("layer_norm_epsilon", 1e-6)),
        buckets=RelativeBuckets(
            buckets=fields.integer("relative_attention_num_buckets", 32, low=4),
            max_distance=fields.integer("relative_attention_max_distance", 128, low=1),
        ),
    )
    tied = fields.flag("tie_word_embeddings", True)
    spec = shape.spec(
        fields.source,
        fields.integer("vocab_size", low=1),
        layers,
        decoder_layers,
        head=Head(tied=tied, scale=width**-0.5 if tied else 1.0),
        family="switch_transformers",
    )
    experts = Experts(
        count=fields.integer("num_experts", 8, low=1, high=MAX_EXPERTS), per_token=1, expert=inner
    )
    assert spec.encoder is not None
    return dataclasses.replace(
        spec,
        stack=_routed(spec.stack, experts, _sparse(fields, "decoder", decoder_layers)),
        encoder=_routed(spec.encoder, experts, _sparse(fields, "encoder", layers)),
    )


def _sparse(fields: Fields, stack: str, layers: int) -> Collection[int]:
    """Which layers have experts: every so many, from the second of them on."""
    count = fields.integer(f"num_sparse_{stack}_layers", 3, low=0)
    step = layers // count if count else layers
    if step < 1:
        fields.fail(f"num_sparse_{stack}_layers", f"is {count}, more than the {layers} layers")
    return range(layers) if step == 1 else range(1, layers, step)


def _routed(stack: Stack, experts: Experts, layers: Collection[int]) -> Stack:
    routed = dataclasses.replace(stack.blocks[0], feed_forward=experts)
    blocks = tuple(routed if i in layers else block for i, block in enumerate(stack.blocks))
    return dataclasses.replace(stack, blocks=blocks)


def _stack_names(prefix: str, stack: str, *, cross: bool) -> dict[str, Name]:
    names = dict(t5.config_stack(prefix, stack, gated=False, cross=cross))
    inner = f"{stack}.block.{{i}}.layer.{2 if cross else 1}.mlp"
    names[f"{prefix}layers.{{i}}.router"] = f"{inner}.router.classifier"
    for name, file in (("up", "wi"), ("down", "wo")):
        names[f"{prefix}layers.{{i}}.{name}"] = f"{inner}.{file}"
        names[f"{prefix}layers.{{i}}.experts.{name}"] = Place(
            name=f"{inner}.experts.expert_{{e}}.{file}", members=expert_count
        )
    return names


CONFIG_NAMES: Names = {
    "embed": "shared",
    "head": FirstOf(places=("lm_head", "shared")),
    **_stack_names("encoder.", "encoder", cross=False),
    **_stack_names("", "decoder", cross=True),
}

_HARMLESS = """
initializer_factor expert_capacity router_jitter_noise router_dtype router_ignore_padding_tokens
add_router_probs
encoder_sparse_step decoder_sparse_step feed_forward_proj n_positions router_type num_partitions
batch_prioritized_routing
"""
FAMILY = Family(
    name="switch_transformers",
    describe_config=describe_config,
    config_names=CONFIG_NAMES,
    harmless=frozenset(_HARMLESS.split()),
)
