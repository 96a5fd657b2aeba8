"""StableLM: LayerNorm, part of a head turned, SwiGLU; the 12B with parallel parts and norms of each head."""

from __future__ import annotations

from typing import Any

from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.cohere import GGUF_NAMES
from pentad.model.families.places import Names, Place
from pentad.model.families.rotary import config_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    "layers.{i}.q_norm": Place(
        name="model.layers.{i}.self_attn.q_layernorm.norms.{e}",
        members=lambda site: site.attention.heads,
        joined=True,
    ),
    "layers.{i}.k_norm": Place(
        name="model.layers.{i}.self_attn.k_layernorm.norms.{e}",
        members=lambda site: site.attention.kv_heads,
        joined=True,
    ),
}


def _finished(spec: ModelSpec, normed: bool) -> ModelSpec:
    return spec.with_attention(qk_norm="each", qk_norm_kind="layer") if normed else spec


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` stablelm."""
    share = fields.number("rope_pct", 0.25)
    spec = llama.describe_config(
        fields,
        family="stablelm",
        positions=lambda dim: config_rope(fields, dim, turned=share),
        norm=Norm(kind="layer", eps=fields.number("layer_norm_eps", 1e-5)),
        biases=frozenset({"qkv"}) if fields.flag("use_qkv_bias", False) else frozenset(),
        parallel_block=fields.flag("use_parallel_residual", False),
    )
    return _finished(spec, fields.flag("qk_layernorm", False))


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `stablelm`."""
    more: dict[str, Any] = {"parallel_block": "blk.0.ffn_norm.weight" not in container.tensors}
    spec = llama.describe_gguf(fields, container, family="stablelm", pairing="half", norm="layer", **more)
    return _finished(spec, "blk.0.attn_q_norm.weight" in container.tensors)


FAMILY = Family(
    name="stablelm",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=frozenset({"norm_eps", "rotary_scaling_factor"}),
)
