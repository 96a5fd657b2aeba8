"""Command-R and Command-A (Cohere 1 and 2): parallel parts that share a LayerNorm without a shift.

Pairs are neighbours everywhere. In the second, layers with a window turn and those that see all don't.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import layer_kinds, with_windows
from pentad.model.families.places import Names, Place, Reshaped, Site, key_rows, query_rows
from pentad.model.families.rotary import config_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_PERIOD = 4


def _scales(name: str, rows: Any) -> Place:
    """A scale for each number of each head, [heads, head size] in files."""

    def flat(site: Site) -> tuple[int, ...]:
        return (rows(site),)

    return Place(name=name, steps=(Reshaped(to=flat),))


GGUF_NAMES: Names = {
    **llama.GGUF_NAMES,
    "layers.{i}.q_norm": _scales("blk.{i}.attn_q_norm", query_rows),
    "layers.{i}.k_norm": _scales("blk.{i}.attn_k_norm", key_rows),
}
CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    "layers.{i}.q_norm": _scales("model.layers.{i}.self_attn.q_norm", query_rows),
    "layers.{i}.k_norm": _scales("model.layers.{i}.self_attn.k_norm", key_rows),
}


def _kind(layer: int, period: int = _PERIOD) -> str:
    """The last layer of each period sees all."""
    return "full_attention" if layer % period == period - 1 else "sliding_attention"


def _finished(spec: ModelSpec, scale: float, normed: bool) -> ModelSpec:
    head = spec.head
    assert head is not None
    spec = dataclasses.replace(spec, head=dataclasses.replace(head, scale=scale))
    return spec.with_attention(qk_norm="each", qk_norm_kind="layer") if normed else spec


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` cohere or cohere2."""
    form = fields.text("model_type")
    spec = llama.describe_config(
        fields,
        family=form,
        positions=lambda dim: config_rope(fields, dim, pairing="interleaved"),
        norm=Norm(kind="layer", eps=fields.number("layer_norm_eps", 1e-5), bias=False),
        parallel_block=True,
        tied_head=fields.flag("tie_word_embeddings", True),
    )
    if form == "cohere2":
        period = fields.integer("sliding_window_pattern", _PERIOD, low=1)
        kinds = layer_kinds(fields, spec.layers, lambda layer: _kind(layer, period))
        window = fields.integer("sliding_window", 4096)
        ropes = {"sliding_attention": spec.rope, "full_attention": None}
        spec = with_windows(spec, kinds, window, ropes)
    return _finished(spec, fields.number("logit_scale", 0.0625), fields.flag("use_qk_norm", False))


def describe_gguf(fields: Fields, container: Container, form: str) -> ModelSpec:
    """The spec of a GGUF file of architecture `command-r` or `cohere2`."""
    spec = llama.describe_gguf(
        fields,
        container,
        family=form,
        norm="layer",
        norm_bias=False,
        parallel_block=True,
        window=None,
    )
    if form == "cohere2":
        kinds = [_kind(layer) for layer in range(spec.layers)]
        ropes = {"sliding_attention": spec.rope, "full_attention": None}
        spec = with_windows(spec, kinds, fields.integer("attention.sliding_window", 4096), ropes)
    normed = "blk.0.attn_q_norm.weight" in container.tensors
    return _finished(spec, fields.number("logit_scale", 0.0625), normed)


def _family(form: str) -> Family:
    return Family(
        name=form,
        describe_gguf=lambda fields, container: describe_gguf(fields, container, form),
        describe_config=describe_config,
        gguf_names=GGUF_NAMES,
        config_names=CONFIG_NAMES,
        harmless=frozenset({"position_embedding_type", "order_of_interleaved_layers", "rotary_pct",
                            "use_embedding_sharing", "use_gated_activation", "use_parallel_block",
                            "use_parallel_embedding", "cache_implementation"}),
    )  # fmt: skip


FIRST = _family("cohere")
SECOND = _family("cohere2")
