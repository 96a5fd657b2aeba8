"""Phi 1, 1.5 and 2: parallel parts that share a LayerNorm, part of a head turned, a head with a bias."""

from __future__ import annotations

import dataclasses

from pentad.execution.spec import Head, ModelSpec, Norm
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import activation, config_decoder, gguf_decoder, needs
from pentad.model.families.gpt2 import EVERY_BIAS
from pentad.model.families.places import Names, either, fused_qkv
from pentad.model.families.rotary import config_rope, gguf_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    "final_norm": "model.final_layernorm",
    "layers.{i}.o": "model.layers.{i}.self_attn.dense",
    "layers.{i}.up": "model.layers.{i}.mlp.fc1",
    "layers.{i}.down": "model.layers.{i}.mlp.fc2",
}
GGUF_NAMES: Names = {**llama.GGUF_NAMES, **either(llama.GGUF_NAMES, fused_qkv("blk.{i}.attn_qkv"))}


def _finished(spec: ModelSpec, tied: bool) -> ModelSpec:
    return dataclasses.replace(spec, head=Head(tied=tied, bias=True))


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` phi."""
    needs(fields, "qk_layernorm", False)
    spec = config_decoder(
        fields,
        "phi",
        positions=lambda dim: config_rope(fields, dim, turned=0.5),
        norm=Norm(kind="layer", eps=fields.number("layer_norm_eps", 1e-5)),
        activation=activation(fields, default="gelu_new"),
        gated=False,
        biases=EVERY_BIAS,
        parallel_block=True,
    )
    return _finished(spec, fields.flag("tie_word_embeddings", False))


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `phi2`."""
    spec = gguf_decoder(
        fields,
        container,
        "phi",
        norm="layer",
        positions=lambda dim: gguf_rope(fields, container, dim, pairing="half"),
        activation="gelu_tanh",
        gated=False,
        biases=EVERY_BIAS,
        parallel_block=True,
    )
    return _finished(spec, "output.weight" not in container.tensors)


FAMILY = Family(
    name="phi",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
)
