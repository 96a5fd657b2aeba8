"""ModernBERT: pre-LayerNorm, rotary attention that is local in two of three layers, GeGLU, no biases."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pentad.execution.classifier import Classifier
from pentad.execution.mixers import Attention, Norm
from pentad.execution.positions import Rope
from pentad.execution.spec import Block, ModelSpec
from pentad.model.families.base import Family
from pentad.model.families.encoders import (
    Keys,
    config_classifier,
    config_encoder,
    gguf_classifier,
    gguf_encoder,
    scoring,
)
from pentad.model.families.places import Names, fused_qkv, halves
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_GLOBAL_BASE, _LOCAL_BASE = 160_000.0, 10_000.0
_GLOBAL_EVERY = 3
_KEYS = Keys(eps="norm_eps", activation="hidden_activation")
GGUF_NAMES: Names = {
    **fused_qkv("blk.{i}.attn_qkv"),
    **halves("blk.{i}.ffn_up", "layers.{i}.gate", "layers.{i}.up"),
    "embed": "token_embd",
    "embed_norm": "token_embd_norm",
    "layers.{i}.o": "blk.{i}.attn_output",
    "layers.{i}.attn_norm": "blk.{i}.attn_norm",
    "layers.{i}.down": "blk.{i}.ffn_down",
    "layers.{i}.ffn_norm": "blk.{i}.ffn_norm",
    "final_norm": "output_norm",
    "classifier.dense": "cls",
    "classifier.norm": "cls.norm",
    "classifier": "cls.output",
}
CONFIG_NAMES: Names = {
    **fused_qkv("layers.{i}.attn.Wqkv"),
    **halves("layers.{i}.mlp.Wi", "layers.{i}.gate", "layers.{i}.up"),
    "embed": "embeddings.tok_embeddings",
    "embed_norm": "embeddings.norm",
    "layers.{i}.o": "layers.{i}.attn.Wo",
    "layers.{i}.attn_norm": "layers.{i}.attn_norm",
    "layers.{i}.down": "layers.{i}.mlp.Wo",
    "layers.{i}.ffn_norm": "layers.{i}.mlp_norm",
    "final_norm": "final_norm",
    "classifier.dense": "head.dense",
    "classifier.norm": "head.norm",
    "classifier": "classifier",
}


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `modern-bert`."""
    norm = Norm(kind="layer", eps=fields.number("attention.layer_norm_epsilon", 1e-5), bias=False)
    spec = gguf_encoder(fields, container, "modernbert", **_parts(norm, frozenset()))
    spec = scoring(spec, gguf_classifier(fields, container, activation="gelu", norm=norm))
    every = fields.integer("attention.sliding_window_pattern", _GLOBAL_EVERY, low=1)
    return _layered(
        spec,
        local=[i % every != 0 for i in range(spec.layers)],
        reach=fields.integer("attention.sliding_window", 128, low=1),
        bases=(
            fields.number("rope.freq_base", _GLOBAL_BASE),
            fields.number("rope.freq_base_swa", _LOCAL_BASE),
        ),
    )


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` modernbert, in its older and newer spelling."""
    norm = Norm(kind="layer", eps=fields.number("norm_eps", 1e-5), bias=fields.flag("norm_bias", False))
    biases = {"qkv", "out"} if fields.flag("attention_bias", False) else set()
    biases |= {"ffn"} if fields.flag("mlp_bias", False) else set()
    spec = config_encoder(fields, "modernbert", keys=_KEYS, **_parts(norm, frozenset(biases)))
    spec = scoring(spec, _classifier(fields, norm))
    ropes = fields.table("rope_parameters")
    return _layered(
        spec,
        local=_local_layers(fields, spec.layers),
        reach=fields.integer("local_attention", 128, low=1),
        bases=(
            _base(ropes, "full_attention", fields.number("global_rope_theta", _GLOBAL_BASE)),
            _base(ropes, "sliding_attention", fields.number("local_rope_theta", _LOCAL_BASE)),
        ),
    )


def _classifier(fields: Fields, norm: Norm) -> Classifier | None:
    if (activation := fields.text("classifier_activation", "gelu")) not in ("gelu", "relu", "tanh"):
        fields.fail("classifier_activation", f"is {activation!r}; gelu, relu and tanh are supported")
    if (pooling := fields.text("classifier_pooling", "cls")) not in ("cls", "mean"):
        fields.fail("classifier_pooling", f"is {pooling!r}; cls and mean are supported")
    return config_classifier(
        fields,
        pooling=pooling,
        activation=activation,
        hidden_bias=fields.flag("classifier_bias", False),
        norm=norm,
    )


def _parts(norm: Norm, biases: frozenset[str]) -> dict[str, Any]:
    return {"norm": norm, "biases": biases, "placement": "pre", "gated": True, "positions": None}


def _base(ropes: Fields, kind: str, default: float) -> float:
    rope = ropes.table(kind)
    if (scaling := rope.text("rope_type", "default")) != "default":
        rope.fail("rope_type", f"is {scaling!r}; default is supported")
    return rope.number("rope_theta", default)


def _local_layers(fields: Fields, layers: int) -> list[bool]:
    """Which layers see but a part of the text."""
    kinds = fields.value("layer_types", None)
    if kinds is None:
        every = fields.integer("global_attn_every_n_layers", _GLOBAL_EVERY, low=1)
        return [i % every != 0 for i in range(layers)]
    known = ("full_attention", "sliding_attention")
    if not isinstance(kinds, list) or len(kinds) != layers or not all(kind in known for kind in kinds):
        fields.fail("layer_types", f"must be a list of {layers} of {' and '.join(known)}")
    return [kind == known[1] for kind in kinds]


def _layered(spec: ModelSpec, *, local: Sequence[bool], reach: int, bases: tuple[float, float]) -> ModelSpec:
    """The spec with its two kinds of layers, the first of which reads the embeddings' norm.

    Args:
        local: whether each layer is.
        reach: tokens that a local layer sees, half of them to either side.
        bases: of the rotations of global and of local layers.
    """

    def block(of: Block, at: int) -> Block:
        assert isinstance(of.mixer, Attention)
        mixer = dataclasses.replace(
            of.mixer,
            window=reach // 2 + 1 if local[at] else None,
            positions=Rope(base=bases[local[at]], dim=of.mixer.head_dim),
        )
        return dataclasses.replace(of, mixer=mixer, mixer_norm=at > 0)

    blocks = tuple(block(of, at) for at, of in enumerate(spec.blocks))
    return dataclasses.replace(spec, stack=dataclasses.replace(spec.stack, blocks=blocks))


_HARMLESS = """
initializer_cutoff_factor decoder_bias sparse_pred_ignore_index sparse_prediction tie_word_embeddings
embedding_dropout reference_compile repad_logits_with_grad deterministic_flash_attn position_embedding_type
"""
FAMILY = Family(
    name="modernbert",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    optional_prefixes=("model.",),
    harmless=frozenset(_HARMLESS.split()),
)
