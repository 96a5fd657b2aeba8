"""gpt-oss: experts with clamped gates and biases, attention with sinks, windows in every other layer.

Folders hold gate and up of a layer's experts as one stack whose rows alternate: [X, 2F, E] where they are
stored in MXFP4, else transposed, [X, E, 2F]. GGUF files hold two stacks.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families import experts, llama
from pentad.model.families.base import Family
from pentad.model.families.describe import config_decoder, gguf_decoder, layer_kinds, needs, with_windows
from pentad.model.families.places import FirstOf, Name, Names, Place, Rows, Transposed
from pentad.model.families.rotary import config_rope, gguf_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_LAYER: Final = "model.layers.{i}."
_EXPERTS: Final = _LAYER + "mlp.experts."
_BASE: Final = 150_000.0
_WINDOW: Final = 128


def _every_other(first: int) -> Rows:
    """Of rows that alternate, those of the gate (0) or of what it weighs (1)."""
    return Rows(start=lambda _: first, count=lambda _: 1, period=lambda _: 2)


def _stack(name: str, *steps: Rows) -> Name:
    """A stack of matrices, in blocks as they are multiplied, or transposed."""
    whole = Place(name=_EXPERTS + name, suffix="", steps=(Transposed(), *steps))
    return FirstOf(places=(Place(name=_EXPERTS + name, steps=steps), whole))


def _biases(name: str, *steps: Rows) -> Place:
    return Place(name=f"{_EXPERTS}{name}_bias", suffix="", steps=steps)


GGUF_NAMES: Names = {
    **llama.GGUF_NAMES,
    "layers.{i}.ffn_norm": "blk.{i}.post_attention_norm",
    "layers.{i}.sinks": "blk.{i}.attn_sinks",
}
CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    "layers.{i}.sinks": Place(name=_LAYER + "self_attn.sinks", suffix=""),
    "layers.{i}.router": _LAYER + "mlp.router",
    "layers.{i}.experts.gate": _stack("gate_up_proj", _every_other(0)),
    "layers.{i}.experts.up": _stack("gate_up_proj", _every_other(1)),
    "layers.{i}.experts.down": _stack("down_proj"),
    "layers.{i}.experts.gate.bias": _biases("gate_up_proj", _every_other(0)),
    "layers.{i}.experts.up.bias": _biases("gate_up_proj", _every_other(1)),
    "layers.{i}.experts.down.bias": _biases("down_proj"),
}


def _kind(layer: int) -> str:
    return "full_attention" if layer % 2 else "sliding_attention"


def _finished(spec: ModelSpec, kinds: tuple[str, ...], window: int, routed: Experts) -> ModelSpec:
    expert = FeedForward(width=routed.expert.width, bias=True, clamped=True)
    routed = dataclasses.replace(routed, expert=expert, scores="softmax_chosen", router_bias="scores")
    return experts.with_experts(with_windows(spec.with_attention(sinks=True), kinds, window), routed)


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` gpt_oss."""
    needs(fields, "hidden_act", "silu")
    needs(fields, "swiglu_alpha", 1.702)
    needs(fields, "swiglu_limit", 7.0)
    if not (fields.table("rope_parameters").values or fields.table("rope_scaling").values):
        fields.fail("rope_scaling", "is missing, so that the stretch of rotary positions is not known")
    spec = config_decoder(
        fields,
        "gpt_oss",
        positions=lambda dim: config_rope(fields, dim, base=_BASE),
        norm=Norm(eps=fields.number("rms_norm_eps", 1e-5)),
        tied_head=fields.flag("tie_word_embeddings", False),
        biases=frozenset({"qkv", "out"}) if fields.flag("attention_bias", True) else frozenset(),
    )
    routed = Experts(
        count=fields.integer("num_local_experts", low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("num_experts_per_tok", low=1),
        expert=FeedForward(width=spec.ffn_width),
    )
    kinds = layer_kinds(fields, spec.layers, _kind)
    return _finished(spec, kinds, fields.integer("sliding_window", _WINDOW), routed)


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `gpt-oss`, which cannot say that the bounds between kept and
    stretched rotary pairs are not rounded, as the published configs do."""
    spec = gguf_decoder(
        fields,
        container,
        "gpt_oss",
        positions=lambda dim: gguf_rope(fields, container, dim, pairing="half", base=_BASE),
        biases=frozenset({"qkv", "out"}),
    )
    rope = spec.rope
    if rope is not None and rope.scaling is not None:
        scaling = dataclasses.replace(rope.scaling, whole_pairs=False)
        spec = spec.with_attention(positions=dataclasses.replace(rope, scaling=scaling))
    kinds = tuple(_kind(layer) for layer in range(spec.layers))
    window = fields.integer("attention.sliding_window", _WINDOW)
    return _finished(spec, kinds, window, experts.gguf_experts(fields))


FAMILY = Family(
    name="gpt_oss",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=frozenset({"initial_context_length", "experts_per_token", "num_experts"}),
)
