"""GLM-4: part of a head turned in neighbouring pairs, fused gate and up; the newer form with four norms."""

from __future__ import annotations

from typing import Any

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.places import Names, either, fused_qkv, halves
from pentad.model.families.rotary import config_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_PAIR = ("layers.{i}.gate", "layers.{i}.up")
_QKV = frozenset({"qkv"})
GGUF_NAMES: Names = {
    **llama.GGUF_NAMES,
    **either(llama.GGUF_NAMES, fused_qkv("blk.{i}.attn_qkv")),
    **halves("blk.{i}.ffn_up", *_PAIR),
    "layers.{i}.attn_out_norm": "blk.{i}.post_attention_norm",
    "layers.{i}.ffn_out_norm": "blk.{i}.post_ffw_norm",
}
CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    **halves("model.layers.{i}.mlp.gate_up_proj", *_PAIR),
    "layers.{i}.attn_out_norm": "model.layers.{i}.post_self_attn_layernorm",
    "layers.{i}.ffn_out_norm": "model.layers.{i}.post_mlp_layernorm",
}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` glm or glm4."""
    form = fields.text("model_type")
    more: dict[str, Any] = {"placement": "both"} if form == "glm4" else {}
    return llama.describe_config(
        fields,
        family=form,
        positions=lambda dim: config_rope(fields, dim, pairing="interleaved", turned=0.5),
        biases=_QKV if fields.flag("attention_bias", False) else frozenset(),
        **more,
    )


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `glm4`, of either form, or `chatglm`."""
    both = "blk.0.post_attention_norm.weight" in container.tensors
    more: dict[str, Any] = {"placement": "both"} if both else {}
    biased = any(f"blk.0.attn_{name}.bias" in container.tensors for name in ("q", "qkv"))
    return llama.describe_gguf(
        fields,
        container,
        family="glm4" if both else "glm",
        biases=_QKV if biased else frozenset(),
        **more,
    )


FAMILY = Family(
    name="glm4",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
)
