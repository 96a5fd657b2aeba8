"""Granite 4 (hybrid): Mamba-2 in most layers, attention in the others; experts, or a shared part alone."""

from __future__ import annotations

from pentad.execution.layers import Block, Experts, FeedForward
from pentad.execution.mixers import Attention, Norm
from pentad.execution.positions import Rope
from pentad.execution.spec import Head, ModelSpec, Stack
from pentad.model.families import experts, llama, mamba
from pentad.model.families.base import Family
from pentad.model.families.describe import needs
from pentad.model.families.places import Name, Names, Place, Rows, Site, Size
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container

_LAYER = "model.layers.{i}."
_KINDS = {"mamba": False, "linear_attention": False, "attention": True, "full_attention": True}
"""Whether a layer of that name attends, in the spelling of the release and of newer configs."""


def _halves(prefix: str, name: str, width: Size) -> dict[str, Name]:
    """The gate above what it weighs."""
    return {
        f"layers.{{i}}.{prefix}gate": Place(name=name, steps=(Rows(start=lambda _: 0, count=width),)),
        f"layers.{{i}}.{prefix}up": Place(name=name, steps=(Rows(start=width, count=width),)),
    }


def _routed(site: Site) -> Experts:
    inner = site.block.feed_forward
    assert isinstance(inner, Experts)
    return inner


def _shared_width(site: Site) -> int:
    inner = site.block.feed_forward
    part = inner.shared if isinstance(inner, Experts) else inner
    assert isinstance(part, FeedForward)
    return part.width


CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    **mamba.hybrid_names(_LAYER),
    **_halves("", _LAYER + "shared_mlp.input_linear", _shared_width),
    "layers.{i}.down": _LAYER + "shared_mlp.output_linear",
    **_halves("shared.", _LAYER + "shared_mlp.input_linear", _shared_width),
    "layers.{i}.shared.down": _LAYER + "shared_mlp.output_linear",
    "layers.{i}.router": _LAYER + "block_sparse_moe.router.layer",
    **_halves("experts.", _LAYER + "block_sparse_moe.input_linear", lambda site: _routed(site).expert.width),
    "layers.{i}.experts.down": _LAYER + "block_sparse_moe.output_linear",
}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` granitemoehybrid."""
    needs(fields, "hidden_act", "silu")
    for flag in ("attention_bias", "mamba_proj_bias"):
        if fields.flag(flag, False):
            fields.fail(flag, "is true; matrices without biases are supported")
    eps = fields.number("rms_norm_eps", 1e-6)
    width = fields.integer("hidden_size", low=1)
    heads = fields.integer("num_attention_heads", low=1)
    layers = fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    types = fields.value("layer_types", None)
    if not isinstance(types, list) or len(types) != layers or not set(types) <= _KINDS.keys():
        fields.fail("layer_types", f"must name {', '.join(_KINDS)} for each of {layers} layers")
    attention = Attention(
        heads=heads,
        kv_heads=fields.integer("num_key_value_heads", heads, low=1),
        head_dim=width // heads,
        positions=_rope(fields, width // heads),
        scale=fields.number("attention_multiplier", 1.0),
    )
    mixer = mamba.config_mixer(fields, width, eps)
    inner, norm = _feed_forward(fields), Norm(eps=eps)
    blocks = tuple(
        Block(
            mixer=attention if _KINDS[kind] else mixer,
            feed_forward=inner,
            norm=norm,
            residual_scale=fields.number("residual_multiplier", 1.0),
        )
        for kind in types
    )
    return ModelSpec(
        name=fields.source,
        family="granite_hybrid",
        vocab_size=fields.integer("vocab_size", low=1),
        context_length=fields.integer("max_position_embeddings", low=1, high=MAX_CONTEXT),
        stack=Stack(width=width, blocks=blocks, final_norm=norm),
        head=Head(
            tied=fields.flag("tie_word_embeddings", False), scale=1 / fields.number("logits_scaling", 1.0)
        ),
        embedding_scale=fields.number("embedding_multiplier", 1.0),
    )


def _rope(fields: Fields, head_dim: int) -> Rope | None:
    """None of the released ones turn queries and keys."""
    if fields.text("position_embedding_type", "nope") != "rope":
        return None
    table = fields.table("rope_parameters")
    if (kind := table.text("rope_type", "default")) != "default":
        fields.fail("rope_parameters", f"has the rope_type {kind!r}; default is supported")
    return Rope(base=table.number("rope_theta", fields.number("rope_theta", 10_000.0)), dim=head_dim)


def _feed_forward(fields: Fields) -> FeedForward | Experts:
    shared = FeedForward(width=fields.integer("shared_intermediate_size", low=1))
    count = fields.integer("num_local_experts", 0, high=experts.MAX_EXPERTS)
    if not count:
        return shared
    return Experts(
        count=count,
        per_token=fields.integer("num_experts_per_tok", low=1),
        expert=FeedForward(width=fields.integer("intermediate_size", low=1)),
        shared=shared,
        scores="softmax_chosen",
    )


def _no_gguf(fields: Fields, container: Container) -> ModelSpec:  # noqa: ARG001 - the interface's
    fields.fail("general.architecture", "is read from Hugging Face folders alone")


_HARMLESS = """
intermediate_size num_experts_per_tok rope_parameters rope_theta position_embedding_type mamba_chunk_size
normalization_function init_method
"""
FAMILY = Family(
    name="granite_hybrid",
    describe_gguf=_no_gguf,
    describe_config=describe_config,
    gguf_names={},
    config_names=CONFIG_NAMES,
    harmless=frozenset(_HARMLESS.split()),
)
