"""Llama 4 (text): most layers turn queries and keys and see a chunk; the others turn nothing and see all.

Queries of the others grow with their position. Some layers, or all, send each token to routed experts, whose
inputs are weighed, and to a shared one; the rest are dense and wider. Folders hold gate and up of a layer's
experts as one transposed stack, one half behind the other; in every file rotary pairs are neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.positions import Growth
from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families import experts, llama
from pentad.model.families.base import Family
from pentad.model.families.describe import activation, by_kind, config_decoder, gguf_decoder, layer_kinds
from pentad.model.families.places import Name, Names, Place, Rows, Size, Transposed
from pentad.model.families.rotary import config_rope, gguf_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_LAYER: Final = "model.layers.{i}."
_CHUNK: Final = 8192
_BASE: Final = 500_000.0
_KINDS: Final = ("full_attention", "chunked_attention")
_UNNORMED: Final = 128
"""Experts of the released model whose GGUF files mean that queries and keys have no norm."""


def _half(start: Size) -> Name:
    steps = (Transposed(), Rows(start=start, count=experts.expert_width))
    return Place(name=_LAYER + "feed_forward.experts.gate_up_proj", suffix="", steps=steps)


CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    **{f"layers.{{i}}.{name}": f"{_LAYER}feed_forward.{name}_proj" for name in ("gate", "up", "down")},
    "layers.{i}.q_norm": experts.UNIT,
    "layers.{i}.k_norm": experts.UNIT,
    "layers.{i}.router": _LAYER + "feed_forward.router",
    "layers.{i}.experts.gate": _half(lambda _: 0),
    "layers.{i}.experts.up": _half(experts.expert_width),
    "layers.{i}.experts.down": Place(
        name=_LAYER + "feed_forward.experts.down_proj", suffix="", steps=(Transposed(),)
    ),
    **experts.shared_names(_LAYER + "feed_forward.shared_expert"),
}
GGUF_NAMES: Names = {
    **llama.GGUF_NAMES,
    "layers.{i}.q_norm": experts.UNIT,
    "layers.{i}.k_norm": experts.UNIT,
}


def _layered(
    spec: ModelSpec,
    turned: Sequence[bool],
    kinds: Sequence[str],
    *,
    chunk: int | None,
    normed: bool,
    growth: Growth | None,
) -> ModelSpec:
    """With what layers that turn queries and keys have, and the others; chunks by kind.

    Args:
        normed: whether the former norm queries and keys, which has no weights.
    """
    turning: dict[str, Any] = {"qk_norm": "head", "qk_norm_last": True} if normed else {}
    still: dict[str, Any] = {"positions": None, "growth": growth}
    changes = {
        f"{which} {kind}": {**fields, "chunk": chunk if kind == "chunked_attention" else None}
        for which, fields in (("turned", turning), ("still", still))
        for kind in _KINDS
    }
    keys = [f"{'turned' if turns else 'still'} {kind}" for turns, kind in zip(turned, kinds, strict=True)]
    return by_kind(spec, keys, changes)


def _routed(spec: ModelSpec, count: int, per_token: int, width: int, layers: Collection[int]) -> ModelSpec:
    expert = FeedForward(width=width)
    routed = Experts(
        count=count, per_token=per_token, expert=expert, shared=expert, scores="sigmoid", weigh_inputs=True
    )
    return experts.with_experts(spec, routed, layers)


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` llama4_text."""
    spec = config_decoder(
        fields,
        "llama4",
        ffn_width=fields.integer("intermediate_size_mlp", low=1),
        positions=lambda dim: config_rope(fields, dim, base=_BASE, pairing="interleaved"),
        norm=Norm(eps=fields.number("rms_norm_eps", 1e-5)),
        activation=activation(fields),
        tied_head=fields.flag("tie_word_embeddings", False),
        biases=frozenset({"qkv", "out"}) if fields.flag("attention_bias", False) else frozenset(),
    )
    period = fields.integer("no_rope_layer_interval", 4, low=1)
    turned = _flags(fields, "no_rope_layers", [(i + 1) % period != 0 for i in range(spec.layers)])
    kinds = layer_kinds(
        fields, spec.layers, lambda i: "chunked_attention" if turned[i] else "full_attention", _KINDS
    )
    growth = Growth(
        weight=fields.number("attn_scale", 0.1), period=fields.integer("floor_scale", 8192, low=1), offset=1
    )
    spec = _layered(
        spec,
        turned,
        kinds,
        chunk=fields.integer("attention_chunk_size", _CHUNK, low=1),
        normed=fields.flag("use_qk_norm", True),
        growth=growth if fields.flag("attn_temperature_tuning", True) else None,
    )
    step = fields.integer("interleave_moe_layer_step", 1, low=1)
    layers = fields.value("moe_layers", list(range(step - 1, spec.layers, step)))
    if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
        fields.fail("moe_layers", "must be a list of layers")
    count = fields.integer("num_local_experts", low=1, high=experts.MAX_EXPERTS)
    per_token = fields.integer("num_experts_per_tok", 1, low=1)
    return _routed(spec, count, per_token, fields.integer("intermediate_size", low=1), layers)


def _flags(fields: Fields, key: str, default: list[bool]) -> list[bool]:
    """A flag for each layer, written as 1 and 0; an empty list is none."""
    value = fields.value(key, None) or default
    if not isinstance(value, list) or len(value) != len(default) or not all(v in (0, 1) for v in value):
        fields.fail(key, f"must be a list of {len(default)} times 1 or 0")
    return [bool(v) for v in value]


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `llama4`, which leaves all but sizes to its readers."""
    spec = gguf_decoder(
        fields,
        container,
        "llama4",
        positions=lambda dim: gguf_rope(fields, container, dim, pairing="interleaved", base=_BASE),
    )
    count = fields.integer("expert_count", low=1, high=experts.MAX_EXPERTS)
    turned = [(i + 1) % 4 != 0 for i in range(spec.layers)]
    spec = _layered(
        spec,
        turned,
        ["chunked_attention" if turns else "full_attention" for turns in turned],
        chunk=fields.integer("attention.sliding_window", _CHUNK, low=1),
        normed=count != _UNNORMED,
        growth=Growth(
            weight=fields.number("attention.temperature_scale", 0.1),
            period=fields.integer("attention.temperature_length", 8192, low=1),
            offset=1,
        ),
    )
    step = fields.integer("interleave_moe_layer_step", 1, low=1)
    width = fields.integer("expert_feed_forward_length", low=1)
    per_token = fields.integer("expert_used_count", low=1)
    return _routed(spec, count, per_token, width, range(step - 1, spec.layers, step))


_HARMLESS = frozenset({"router_jitter_noise", "for_llm_compressor"})
FAMILY = Family(
    name="llama4",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=_HARMLESS,
)
