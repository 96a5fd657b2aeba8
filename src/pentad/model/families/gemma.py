"""Gemma 1 to 3 (text): scales less one, GELU gates, scaled embeddings; 2 and 3 with norms on both sides.

GGUF files hold the scales of norms whole; Hugging Face folders hold them less 1.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pentad.execution.spec import Head, ModelSpec, Norm
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import (
    activation,
    config_decoder,
    gguf_decoder,
    layer_kinds,
    needs,
    with_windows,
)
from pentad.model.families.places import Names, plus_one
from pentad.model.families.rotary import config_rope, gguf_rope, typed_ropes
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_NEAR_BASE = 10_000.0
"""Of layers with a window, in Gemma 3."""
_LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B model, whose scores are scaled by another size; GGUF files don't say by which."""
GGUF_NAMES: Names = {
    **llama.GGUF_NAMES,
    "layers.{i}.attn_out_norm": "blk.{i}.post_attention_norm",
    "layers.{i}.ffn_out_norm": "blk.{i}.post_ffw_norm",
    "layers.{i}.q_norm": "blk.{i}.attn_q_norm",
    "layers.{i}.k_norm": "blk.{i}.attn_k_norm",
}
_NORMS = {
    "final_norm": "model.norm",
    "layers.{i}.attn_norm": "model.layers.{i}.input_layernorm",
    "layers.{i}.attn_out_norm": "model.layers.{i}.post_attention_layernorm",
    "layers.{i}.ffn_norm": "model.layers.{i}.pre_feedforward_layernorm",
    "layers.{i}.ffn_out_norm": "model.layers.{i}.post_feedforward_layernorm",
    "layers.{i}.q_norm": "model.layers.{i}.self_attn.q_norm",
    "layers.{i}.k_norm": "model.layers.{i}.self_attn.k_norm",
}
CONFIG_NAMES: Names = {**llama.CONFIG_NAMES, **{key: plus_one(name) for key, name in _NORMS.items()}}
FIRST_NAMES: Names = {
    **CONFIG_NAMES,
    "layers.{i}.ffn_norm": plus_one("model.layers.{i}.post_attention_layernorm"),
}


def _finished(spec: ModelSpec, cap: float | None = None) -> ModelSpec:
    head = dataclasses.replace(spec.head or Head(), cap=cap)
    return dataclasses.replace(spec, embedding_scale=spec.width**0.5, head=head)


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` gemma, gemma2 or gemma3_text."""
    form = fields.text("model_type").removesuffix("_text")
    needs(fields, "use_bidirectional_attention", False)
    key = "hidden_activation" if fields.has("hidden_activation") else "hidden_act"
    common: dict[str, Any] = {
        "norm": Norm(eps=fields.number("rms_norm_eps", 1e-6)),
        "activation": activation(fields, key, "gelu_pytorch_tanh"),
        "tied_head": fields.flag("tie_word_embeddings", True),
        "biases": frozenset({"qkv", "out"}) if fields.flag("attention_bias", False) else frozenset(),
    }
    if form == "gemma":
        return _finished(
            config_decoder(fields, form, positions=lambda dim: config_rope(fields, dim), **common)
        )
    third = form == "gemma3"
    spec = config_decoder(fields, form, positions=None, placement="both", qk_norm=third, **common)
    bases = {"sliding_attention": _NEAR_BASE, "full_attention": 1e6 if third else _NEAR_BASE}
    if third and fields.has("rope_local_base_freq"):
        bases["sliding_attention"] = fields.number("rope_local_base_freq")
    ropes = _ropes(fields, spec.head_dim, bases, third)
    period = fields.integer("sliding_window_pattern", fields.integer("_sliding_window_pattern", 6), low=1)
    every = period if third else 2

    kinds = layer_kinds(fields, spec.layers, lambda layer: _kind(layer, every))
    spec = with_windows(spec, kinds, fields.integer("sliding_window", 4096), ropes)
    scale = fields.number("query_pre_attn_scalar", 256.0) ** -0.5
    capped = fields.number("attn_logit_softcapping", 0.0) or None
    spec = spec.with_attention(scale=scale, score_cap=capped)
    return _finished(spec, fields.number("final_logit_softcapping", 0.0) or None)


def _kind(layer: int, period: int) -> str:
    """The last layer of each period sees all."""
    return "full_attention" if layer % period == period - 1 else "sliding_attention"


def _ropes(fields: Fields, head_dim: int, bases: dict[str, float], third: bool) -> dict[str, Any]:
    """The older spelling gives the far base and a scaling of far layers alone."""
    if not third or any(kind in fields.table("rope_parameters").values for kind in bases):
        return dict(typed_ropes(fields, head_dim, bases))
    far = config_rope(fields, head_dim, base=bases["full_attention"])
    near = dataclasses.replace(far, base=bases["sliding_attention"], scaling=None)
    return {"sliding_attention": near, "full_attention": far}


def describe_gguf(fields: Fields, container: Container, form: str) -> ModelSpec:
    """The spec of a GGUF file of architecture `gemma`, `gemma2` or `gemma3`."""
    first, third = form == "gemma", form == "gemma3"
    spec = gguf_decoder(
        fields,
        container,
        form,
        eps=1e-6,
        positions=lambda dim: gguf_rope(
            fields, container, dim, pairing="half", base=1e6 if third else _NEAR_BASE
        ),
        activation="gelu_tanh",
        placement="pre" if first else "both",
        qk_norm=third,
    )
    if first:
        return _finished(spec)
    far = spec.rope
    assert far is not None
    near = dataclasses.replace(far, base=_NEAR_BASE, scaling=None) if third else far
    period = fields.integer("attention.sliding_window_pattern", 6 if third else 2, low=1)
    kinds = [_kind(layer, period) for layer in range(spec.layers)]
    window = fields.integer("attention.sliding_window", 4096)
    spec = with_windows(spec, kinds, window, {"sliding_attention": near, "full_attention": far})
    size = spec.width / spec.heads if spec.layers == _LARGEST[form] else spec.head_dim
    caps = [fields.number(f"{which}_logit_softcapping", 0.0) or None for which in ("attn", "final")]
    if not third:
        caps = [fields.number("attn_logit_softcapping", 50.0), fields.number("final_logit_softcapping", 30.0)]
    return _finished(spec.with_attention(scale=size**-0.5, score_cap=caps[0]), caps[1])


def _family(form: str, config_names: Names) -> Family:
    return Family(
        name=form,
        describe_gguf=lambda fields, container: describe_gguf(fields, container, form),
        describe_config=describe_config,
        gguf_names=GGUF_NAMES,
        config_names=config_names,
        harmless=frozenset({"cache_implementation", "use_bidirectional_attention"}),
    )


FIRST = _family("gemma", FIRST_NAMES)
SECOND = _family("gemma2", CONFIG_NAMES)
THIRD = _family("gemma3", CONFIG_NAMES)
