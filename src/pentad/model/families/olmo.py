"""OLMo 1 to 3: norms without scales in the first, norms on outputs and of queries and keys in the others."""

from __future__ import annotations

import dataclasses

from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import layer_kinds, with_windows
from pentad.model.families.places import Constant, Names
from pentad.model.families.rotary import typed_ropes
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_PERIOD = 4
_PLAIN = dict.fromkeys(("final_norm", "layers.{i}.attn_norm", "layers.{i}.ffn_norm"), Constant(value=1.0))
GGUF_NAMES: Names = {
    **llama.GGUF_NAMES,
    "layers.{i}.attn_out_norm": "blk.{i}.post_attention_norm",
    "layers.{i}.ffn_out_norm": "blk.{i}.post_ffw_norm",
    "layers.{i}.q_norm": "blk.{i}.attn_q_norm",
    "layers.{i}.k_norm": "blk.{i}.attn_k_norm",
}
CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    "layers.{i}.attn_out_norm": "model.layers.{i}.post_attention_layernorm",
    "layers.{i}.ffn_out_norm": "model.layers.{i}.post_feedforward_layernorm",
    "layers.{i}.q_norm": "model.layers.{i}.self_attn.q_norm",
    "layers.{i}.k_norm": "model.layers.{i}.self_attn.k_norm",
}


def _kind(layer: int) -> str:
    """The last of four layers sees all."""
    return "full_attention" if layer % _PERIOD == _PERIOD - 1 else "sliding_attention"


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` olmo2 or olmo3."""
    form = fields.text("model_type")
    norm = Norm(eps=fields.number("rms_norm_eps", 1e-5))
    if form == "olmo2":
        spec = llama.describe_config(fields, family=form, placement="output", norm=norm)
        return spec.with_attention(qk_norm="all")
    spec = llama.describe_config(fields, family=form, placement="output", norm=norm, positions=None)
    bases = dict.fromkeys(("sliding_attention", "full_attention"), 500_000.0)
    ropes = typed_ropes(fields, spec.head_dim, bases)
    if not any(kind in fields.table("rope_parameters").values for kind in bases):
        ropes["sliding_attention"] = dataclasses.replace(ropes["sliding_attention"], scaling=None)
    window = fields.integer("sliding_window", 4096)
    spec = with_windows(spec, layer_kinds(fields, spec.layers, _kind), window, dict(ropes))
    return spec.with_attention(qk_norm="all")


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `olmo2`; with a window it is OLMo 3."""
    spec = llama.describe_gguf(fields, container, family="olmo2", pairing="half", placement="output")
    spec = spec.with_attention(qk_norm="all")
    far = spec.rope
    if spec.narrowest_window is None or far is None:
        return spec
    near = dataclasses.replace(far, scaling=None)
    period = fields.integer("attention.sliding_window_pattern", _PERIOD, low=1)
    kinds = [_kind(i % period + _PERIOD - period) for i in range(spec.layers)]
    ropes = {"sliding_attention": near, "full_attention": far}
    return with_windows(spec, kinds, spec.narrowest_window, dict(ropes))


def describe_first(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` olmo."""
    norm = Norm(kind="layer", eps=1e-5, bias=False)
    spec = llama.describe_config(fields, family="olmo", norm=norm)
    return spec.with_attention(qkv_clip=fields.number("clip_qkv", 0.0) or None)


def describe_first_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `olmo`."""
    spec = llama.describe_gguf(fields, container, family="olmo", norm="layer", norm_bias=False)
    return spec.with_attention(qkv_clip=fields.number("attention.clamp_kqv", 0.0) or None)


FIRST = Family(
    name="olmo",
    describe_gguf=describe_first_gguf,
    describe_config=describe_first,
    gguf_names={**llama.GGUF_NAMES, **_PLAIN},
    config_names={**llama.CONFIG_NAMES, **_PLAIN},
)
FAMILY = Family(
    name="olmo2",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
)
