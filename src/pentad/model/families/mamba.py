"""Mamba-2 (Dao and Gu 2024) by itself, and the places of its tensors for the hybrids that have it in layers.

One matrix gives gate, values, keys, queries and steps, in that order. The first four go on as
execution/recurrences.py tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from pentad.execution.layers import Block
from pentad.execution.mixers import Attention, Norm, Recurrent
from pentad.execution.spec import Head, ModelSpec, Stack
from pentad.model.families.base import Family
from pentad.model.families.describe import needs
from pentad.model.families.places import Name, Names, Place, Reshaped, Rows, Site, Size, Values
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container

_CONTEXT: Final = 1 << 20
"""Tokens of a text, which no config of a model without positions bounds."""


def recurrent(site: Site) -> Recurrent:
    """The layer's mixer, where it is a linear recurrence."""
    mixer = site.block.mixer
    assert isinstance(mixer, Recurrent), "only recurrent layers have these tensors"
    return mixer


def convolution(name: str) -> dict[str, Name]:
    """The kernels of a convolution, of one channel each."""

    def shape(site: Site) -> tuple[int, ...]:
        return recurrent(site).convolved, recurrent(site).conv

    return {
        "layers.{i}.conv": Place(name=name, steps=(Reshaped(to=shape),)),
        "layers.{i}.conv.bias": Place(name=name),
    }


def _projected(name: str) -> dict[str, Name]:
    def inner(site: Site) -> int:
        return recurrent(site).inner

    def keys(site: Site) -> int:
        return recurrent(site).keys

    def part(start: Size, count: Size) -> Place:
        return Place(name=name, steps=(Rows(start=start, count=count),))

    return {
        "layers.{i}.z": part(lambda _: 0, inner),
        "layers.{i}.v": part(inner, inner),
        "layers.{i}.k": part(lambda site: 2 * inner(site), keys),
        "layers.{i}.q": part(lambda site: 2 * inner(site) + keys(site), keys),
        "layers.{i}.step": part(
            lambda site: inner(site) + recurrent(site).convolved, lambda site: recurrent(site).heads
        ),
    }


def config_names(prefix: str) -> dict[str, Name]:
    """Names of a folder whose mixers' tensors stand under `prefix`."""
    return {
        **_projected(f"{prefix}.in_proj"),
        **convolution(f"{prefix}.conv1d"),
        "layers.{i}.step.bias": Place(name=f"{prefix}.dt_bias", suffix=""),
        "layers.{i}.decay": Place(name=f"{prefix}.A_log", suffix=""),
        "layers.{i}.skip": Place(name=f"{prefix}.D", suffix=""),
        "layers.{i}.inner_norm": f"{prefix}.norm",
        "layers.{i}.o": f"{prefix}.out_proj",
    }


def hybrid_names(layer: str) -> Names:
    """Of a folder whose layers, named `layer`, have `mamba` or `self_attn`."""
    recurrent_names = config_names(f"{layer}mamba")

    def of_kind(name: str) -> Callable[[Site], Name]:
        """A tensor that both kinds of mixers have."""

        def place(site: Site) -> Name:
            if isinstance(site.block.mixer, Attention):
                return f"{layer}self_attn.{name}_proj"
            return recurrent_names[f"layers.{{i}}.{name}"]

        return place

    return {**recurrent_names, **{f"layers.{{i}}.{name}": of_kind(name) for name in "qkvo"}}


def config_mixer(fields: Fields, width: int, eps: float) -> Recurrent:
    """The mixer of a hybrid whose config names it by keys that begin with `mamba_`."""
    heads = fields.integer("mamba_n_heads", low=1)
    groups = fields.integer("mamba_n_groups", 1, low=1)
    inner = fields.integer("mamba_expand", 2, low=1) * width
    head_dim = (
        inner // heads if fields.value("mamba_d_head", None) == "auto" else fields.integer("mamba_d_head")
    )
    return Recurrent(
        rule="mamba2",
        heads=heads,
        value_dim=head_dim,
        groups=groups,
        key_dim=fields.integer("mamba_d_state", low=1),
        conv=fields.integer("mamba_d_conv", 4, low=1),
        conv_bias=fields.flag("mamba_conv_bias", True),
        norm_groups=groups,
        norm_eps=eps,
        step_limits=step_limits(fields),
    )


def _heads(site: Site) -> tuple[int, ...]:
    return (recurrent(site).heads,)


GGUF_NAMES: Final[Names] = {
    **_projected("blk.{i}.ssm_in"),
    **convolution("blk.{i}.ssm_conv1d"),
    "layers.{i}.step.bias": "blk.{i}.ssm_dt",
    "layers.{i}.decay": Place(
        name="blk.{i}.ssm_a",
        suffix="",
        steps=(
            Reshaped(to=_heads),
            Values(change=lambda a: np.log(-a), back=lambda a: -np.exp(a)),
        ),
    ),
    "layers.{i}.skip": Place(name="blk.{i}.ssm_d", suffix="", steps=(Reshaped(to=_heads),)),
    "layers.{i}.inner_norm": Place(
        name="blk.{i}.ssm_norm", steps=(Reshaped(to=lambda site: (recurrent(site).inner,)),)
    ),
    "layers.{i}.o": "blk.{i}.ssm_out",
}
"""Of the mixers of every architecture that has them; rates of decay stand as they multiply."""


def step_limits(fields: Fields) -> tuple[float, float] | None:
    """Between what steps are cut, if they are; None for 0 to infinity, which cut nothing."""
    value = fields.value("time_step_limit", None)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        fields.fail("time_step_limit", "must be two numbers")
    # JSON has no infinity: a config that was written strictly spells it out.
    low, high = (float(v["__float__"] if isinstance(v, dict) else v) for v in value)
    return None if low <= 0 and math.isinf(high) else (low, high)


def gguf_mixer(fields: Fields) -> Recurrent:
    """The mixer that GGUF metadata tell."""
    inner = fields.integer("ssm.inner_size", low=1)
    heads = fields.integer("ssm.time_step_rank", low=1)
    groups = fields.integer("ssm.group_count", low=1)
    return Recurrent(
        rule="mamba2",
        heads=heads,
        value_dim=inner // heads,
        groups=groups,
        key_dim=fields.integer("ssm.state_size", low=1),
        conv=fields.integer("ssm.conv_kernel", low=1),
        norm_groups=groups,
        norm_eps=fields.number("attention.layer_norm_rms_epsilon", 1e-5),
    )


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` mamba2."""
    needs(fields, "hidden_act", "silu")
    if fields.flag("use_bias", False):
        fields.fail("use_bias", "is true; matrices without biases are supported")
    width = fields.integer("hidden_size", low=1)
    groups = fields.integer("n_groups", 8, low=1)
    eps = fields.number("layer_norm_epsilon", 1e-5)
    mixer = Recurrent(
        rule="mamba2",
        heads=fields.integer("num_heads", low=1),
        value_dim=fields.integer("head_dim", low=1),
        groups=groups,
        key_dim=fields.integer("state_size", low=1),
        conv=fields.integer("conv_kernel", 4, low=1),
        conv_bias=fields.flag("use_conv_bias", True),
        norm_groups=groups,
        norm_eps=eps,
        step_limits=step_limits(fields),
    )
    return _spec(
        fields,
        mixer,
        vocab=fields.integer("vocab_size", low=1),
        width=width,
        layers=fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS),
        context=_CONTEXT,
        eps=eps,
        tied=fields.flag("tie_word_embeddings", False),
    )


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `mamba2`."""
    embed = container.tensors.get("token_embd.weight")
    if embed is None:
        fields.fail("token_embd.weight", "is not among the tensors")
    mixer = gguf_mixer(fields)
    return _spec(
        fields,
        mixer,
        vocab=embed.shape[0],
        width=fields.integer("embedding_length", low=1),
        layers=fields.integer("block_count", low=1, high=MAX_LAYERS),
        context=fields.integer("context_length", _CONTEXT, low=1, high=MAX_CONTEXT),
        eps=mixer.norm_eps,
        tied="output.weight" not in container.tensors,
    )


def _spec(
    fields: Fields,
    mixer: Recurrent,
    *,
    vocab: int,
    width: int,
    layers: int,
    context: int,
    eps: float,
    tied: bool,
) -> ModelSpec:
    norm = Norm(eps=eps)
    return ModelSpec(
        name=fields.source,
        family="mamba2",
        vocab_size=vocab,
        context_length=context,
        stack=Stack(
            width=width,
            blocks=(Block(mixer=mixer, feed_forward=None, norm=norm),) * layers,
            final_norm=norm,
        ),
        head=Head(tied=tied),
    )


_HARMLESS = """
residual_in_fp32 rescale_prenorm_residual time_step_rank time_step_min time_step_max time_step_floor
chunk_size expand use_mamba_kernels
"""
FAMILY = Family(
    name="mamba2",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names={
        "embed": "token_embd",
        "final_norm": "output_norm",
        "head": "output",
        "layers.{i}.attn_norm": "blk.{i}.attn_norm",
        **GGUF_NAMES,
    },
    config_names={
        "embed": "backbone.embeddings",
        "final_norm": "backbone.norm_f",
        "head": "lm_head",
        "layers.{i}.attn_norm": "backbone.layers.{i}.norm",
        **config_names("backbone.layers.{i}.mixer"),
    },
    harmless=frozenset(_HARMLESS.split()),
)
