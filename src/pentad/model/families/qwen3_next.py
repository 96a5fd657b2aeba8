"""Qwen3-Next and Qwen3.5 (text): gated delta rules, and attention with a gate every few layers.

Queries and their gate stand in one matrix, head by head. What enters the delta rule stands in one matrix by
key heads in Qwen3-Next, and in four in Qwen3.5.
"""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import Block, Experts, FeedForward
from pentad.execution.mixers import Attention, Norm, Recurrent
from pentad.execution.positions import Rope
from pentad.execution.spec import Head, ModelSpec, Stack
from pentad.model.families import experts, llama, mamba
from pentad.model.families.base import Family
from pentad.model.families.describe import needs
from pentad.model.families.mamba import recurrent
from pentad.model.families.places import Name, Names, Place, Rows, Site, Size
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container

_LAYER = "model.layers.{i}."


def _head(site: Site) -> int:
    return site.attention.head_dim


def _shared(site: Site) -> int:
    """Value heads that one key head serves."""
    return recurrent(site).heads // recurrent(site).groups


def _key(site: Site) -> int:
    return recurrent(site).key_dim


def _values(site: Site) -> int:
    """Values of the heads that one key head serves."""
    return _shared(site) * recurrent(site).value_dim


def _part(name: str, start: Size, count: Size, period: Size | None = None) -> Place:
    return Place(name=_LAYER + name, steps=(Rows(start=start, count=count, period=period),))


def _q(site: Site) -> Name:
    """Of heads that attend, in front of their gate; of a key head."""
    if isinstance(site.block.mixer, Attention):
        return _part("self_attn.q_proj", lambda _: 0, _head, lambda s: 2 * _head(s))
    return _part("linear_attn.in_proj_qkvz", lambda _: 0, _key, _group)


def _group(site: Site) -> int:
    """Rows of one key head: query, key, values, gate."""
    return 2 * _key(site) + 2 * _values(site)


def _k(site: Site) -> Name:
    if isinstance(site.block.mixer, Attention):
        return _LAYER + "self_attn.k_proj"
    return _part("linear_attn.in_proj_qkvz", _key, _key, _group)


def _v(site: Site) -> Name:
    if isinstance(site.block.mixer, Attention):
        return _LAYER + "self_attn.v_proj"
    return _part("linear_attn.in_proj_qkvz", lambda s: 2 * _key(s), _values, _group)


def _o(site: Site) -> Name:
    attends = isinstance(site.block.mixer, Attention)
    return _LAYER + ("self_attn.o_proj" if attends else "linear_attn.out_proj")


COMMON_NAMES: Names = {
    **llama.CONFIG_NAMES,
    "layers.{i}.q": _q,
    "layers.{i}.k": _k,
    "layers.{i}.v": _v,
    "layers.{i}.o": _o,
    "layers.{i}.attn_gate": _part("self_attn.q_proj", _head, _head, lambda s: 2 * _head(s)),
    "layers.{i}.q_norm": _LAYER + "self_attn.q_norm",
    "layers.{i}.k_norm": _LAYER + "self_attn.k_norm",
    **mamba.convolution(_LAYER + "linear_attn.conv1d"),
    "layers.{i}.step.bias": Place(name=_LAYER + "linear_attn.dt_bias", suffix=""),
    "layers.{i}.decay": Place(name=_LAYER + "linear_attn.A_log", suffix=""),
    "layers.{i}.inner_norm": _LAYER + "linear_attn.norm",
}
NEXT_NAMES: Names = {
    **COMMON_NAMES,
    "layers.{i}.z": _part("linear_attn.in_proj_qkvz", lambda s: 2 * _key(s) + _values(s), _values, _group),
    "layers.{i}.rate": _part("linear_attn.in_proj_ba", lambda _: 0, _shared, lambda s: 2 * _shared(s)),
    "layers.{i}.step": _part("linear_attn.in_proj_ba", _shared, _shared, lambda s: 2 * _shared(s)),
    **experts.config_names(_LAYER + "mlp", "gate_proj", "up_proj", "down_proj"),
    **experts.shared_names(_LAYER + "mlp.shared_expert"),
    "layers.{i}.shared_gate": _LAYER + "mlp.shared_expert_gate",
}


def _apart(place: str, start: Size, count: Size) -> Name:
    """A place by the kind of the layer: Qwen3.5 has queries, keys and values one above the other."""
    return _part(f"linear_attn.{place}", start, count)


def _keys(site: Site) -> int:
    return recurrent(site).keys


def _q_apart(site: Site) -> Name:
    return _q(site) if isinstance(site.block.mixer, Attention) else _apart("in_proj_qkv", lambda _: 0, _keys)


def _k_apart(site: Site) -> Name:
    return _k(site) if isinstance(site.block.mixer, Attention) else _apart("in_proj_qkv", _keys, _keys)


def _v_apart(site: Site) -> Name:
    if isinstance(site.block.mixer, Attention):
        return _v(site)
    return _apart("in_proj_qkv", lambda s: 2 * _keys(s), lambda s: recurrent(s).inner)


QWEN_3_5_NAMES: Names = {
    **COMMON_NAMES,
    "layers.{i}.q": _q_apart,
    "layers.{i}.k": _k_apart,
    "layers.{i}.v": _v_apart,
    "layers.{i}.z": _LAYER + "linear_attn.in_proj_z",
    "layers.{i}.rate": _LAYER + "linear_attn.in_proj_b",
    "layers.{i}.step": _LAYER + "linear_attn.in_proj_a",
}


def describe_next_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` qwen3_next."""
    width = fields.integer("moe_intermediate_size", low=1)
    routed = Experts(
        count=fields.integer("num_experts", low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("num_experts_per_tok", low=1),
        expert=FeedForward(width=width),
        shared=FeedForward(width=fields.integer("shared_expert_intermediate_size", low=1)),
        shared_gate=True,
        normalised=fields.flag("norm_topk_prob", True),
    )
    step = fields.integer("decoder_sparse_step", 1, low=1)
    dense = fields.value("mlp_only_layers", None) or []
    if not isinstance(dense, list):
        fields.fail("mlp_only_layers", "must be a list of layers")
    layers = fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    sparse = [i for i in range(layers) if i not in dense and (i + 1) % step == 0]
    return experts.with_experts(_hybrid(fields, "qwen3_next"), routed, sparse)


def describe_3_5_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` qwen3_5_text, whose layers are dense."""
    return _hybrid(fields, "qwen3_5")


def _hybrid(fields: Fields, family: str) -> ModelSpec:
    """Layers of both kinds, all of them dense."""
    needs(fields, "attention_bias", False)
    needs(fields, "hidden_act", "silu")
    needs(fields, "attn_output_gate", True)
    eps = fields.number("rms_norm_eps", 1e-6)
    norm = Norm(eps=eps, offset=1.0)
    head_dim = fields.integer("head_dim", 256, low=2)
    rope = fields.table("rope_parameters")
    share = rope.number("partial_rotary_factor", fields.number("partial_rotary_factor", 0.25))
    if (kind := rope.text("rope_type", "default")) not in ("default", "mrope"):
        fields.fail("rope_parameters", f"has the rope_type {kind!r}; default is supported")
    for key in ("mrope_section", "mrope_interleaved"):  # the positions of text are one
        rope.has(key)
    attention = Attention(
        heads=fields.integer("num_attention_heads", low=1),
        kv_heads=fields.integer("num_key_value_heads", low=1),
        head_dim=head_dim,
        positions=Rope(
            base=rope.number("rope_theta", fields.number("rope_theta", 10_000.0)), dim=int(head_dim * share)
        ),
        qk_norm="head",
        output_gate=True,
    )
    rule = Recurrent(
        rule="gated_delta",
        heads=fields.integer("linear_num_value_heads", low=1),
        value_dim=fields.integer("linear_value_head_dim", low=1),
        groups=fields.integer("linear_num_key_heads", low=1),
        key_dim=fields.integer("linear_key_head_dim", low=1),
        conv=fields.integer("linear_conv_kernel_dim", 4, low=1),
        conv_bias=False,
        norm_eps=eps,
    )
    inner = FeedForward(width=fields.integer("intermediate_size", low=1))
    kinds = layer_types(fields, {"linear_attention": rule, "full_attention": attention})
    return ModelSpec(
        name=fields.source,
        family=family,
        vocab_size=fields.integer("vocab_size", low=1),
        context_length=fields.integer("max_position_embeddings", low=1, high=MAX_CONTEXT),
        stack=Stack(
            width=fields.integer("hidden_size", low=1),
            blocks=tuple(Block(mixer=mixer, feed_forward=inner, norm=norm) for mixer in kinds),
            final_norm=norm,
        ),
        head=Head(tied=fields.flag("tie_word_embeddings", False)),
    )


def layer_types(fields: Fields, kinds: dict[str, Recurrent | Attention]) -> list[Recurrent | Attention]:
    """The mixer of each layer, as `layer_types` or every `full_attention_interval`-th layer tells."""
    layers = fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    every = fields.integer("full_attention_interval", 4, low=1)
    names = fields.value("layer_types", None)
    if names is None:
        names = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(layers)]
    if not isinstance(names, list) or len(names) != layers or not set(names) <= kinds.keys():
        fields.fail("layer_types", f"must name one of {', '.join(kinds)} for each of {layers} layers")
    return [kinds[name] for name in names]


def _no_gguf(fields: Fields, container: Container) -> ModelSpec:  # noqa: ARG001 - the interface's
    fields.fail("general.architecture", "is read from Hugging Face folders alone")


_HARMLESS = """
mtp_num_hidden_layers mtp_use_dedicated_embeddings mamba_ssm_dtype attn_output_gate
"""
NEXT = Family(
    name="qwen3_next",
    describe_gguf=_no_gguf,
    describe_config=describe_next_config,
    gguf_names={},
    config_names=NEXT_NAMES,
    harmless=frozenset(_HARMLESS.split()),
)
QWEN_3_5 = dataclasses.replace(
    NEXT, name="qwen3_5", describe_config=describe_3_5_config, config_names=QWEN_3_5_NAMES
)
