"""Llama 1 to 3.2, TinyLlama, SmolLM2 and Mistral: pre-RMSNorm, SwiGLU, RoPE, no biases.

GGUF files of this architecture hold query and key rows reordered so that rotary pairs are
neighbours (`pairing="interleaved"`); Hugging Face folders keep the halves apart.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pentad.execution.spec import ModelSpec, Norm, Rope, RopeScaling
from pentad.execution.uniform import uniform_spec
from pentad.model.families import experts
from pentad.model.families.base import Family
from pentad.model.families.places import Names
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container

GGUF_NAMES: Names = {
    "embed": "token_embd",
    "final_norm": "output_norm",
    "head": "output",
    "layers.{i}.attn_norm": "blk.{i}.attn_norm",
    "layers.{i}.q": "blk.{i}.attn_q",
    "layers.{i}.k": "blk.{i}.attn_k",
    "layers.{i}.v": "blk.{i}.attn_v",
    "layers.{i}.o": "blk.{i}.attn_output",
    "layers.{i}.ffn_norm": "blk.{i}.ffn_norm",
    "layers.{i}.gate": "blk.{i}.ffn_gate",
    "layers.{i}.up": "blk.{i}.ffn_up",
    "layers.{i}.down": "blk.{i}.ffn_down",
    **experts.GGUF_NAMES,
}
CONFIG_NAMES: Names = {
    "embed": "model.embed_tokens",
    "final_norm": "model.norm",
    "head": "lm_head",
    "layers.{i}.attn_norm": "model.layers.{i}.input_layernorm",
    "layers.{i}.q": "model.layers.{i}.self_attn.q_proj",
    "layers.{i}.k": "model.layers.{i}.self_attn.k_proj",
    "layers.{i}.v": "model.layers.{i}.self_attn.v_proj",
    "layers.{i}.o": "model.layers.{i}.self_attn.o_proj",
    "layers.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "layers.{i}.gate": "model.layers.{i}.mlp.gate_proj",
    "layers.{i}.up": "model.layers.{i}.mlp.up_proj",
    "layers.{i}.down": "model.layers.{i}.mlp.down_proj",
}


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `llama` (or one laid out like it)."""
    width = fields.integer("embedding_length", low=1)
    heads = fields.integer("attention.head_count", low=1)
    head_dim = fields.integer("attention.key_length", width // heads, low=1)
    embed = container.tensors.get("token_embd.weight")
    if embed is None:
        fields.fail("token_embd.weight", "is not among the tensors")
    window = fields.integer("attention.sliding_window", 0)
    rope_dim = fields.integer("rope.dimension_count", head_dim, low=2)
    if rope_dim > head_dim or rope_dim % 2:
        fields.fail("rope.dimension_count", f"is {rope_dim}, must be even and at most {head_dim}")
    rope = Rope(
        base=fields.number("rope.freq_base", 10_000.0),
        dim=rope_dim,
        pairing="interleaved",
        scaling=_gguf_scaling(fields),
        frequency_factors=_frequency_factors(fields, container, rope_dim),
    )
    spec = uniform_spec(
        name=fields.source,
        family="llama",
        vocab_size=embed.shape[0],
        layers=fields.integer("block_count", low=1, high=MAX_LAYERS),
        width=width,
        heads=heads,
        kv_heads=fields.integer("attention.head_count_kv", heads, low=1),
        head_dim=head_dim,
        ffn_width=fields.integer("feed_forward_length", low=1),
        context_length=fields.integer("context_length", low=1, high=MAX_CONTEXT),
        positions=rope,
        norm=Norm(kind="rms", eps=fields.number("attention.layer_norm_rms_epsilon", 1e-5)),
        tied_head="output.weight" not in container.tensors,
        window=window or None,
    )
    if fields.integer("expert_count", 0):  # Mixtral's files say that they are Llama's
        return experts.with_experts(spec, experts.gguf_experts(fields, scores="softmax_chosen"))
    return spec


def _gguf_scaling(fields: Fields) -> RopeScaling | None:
    kind = fields.text("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind != "linear":
        fields.fail("rope.scaling.type", f"is {kind!r}; none and linear are supported")
    return RopeScaling(kind="linear", factor=fields.number("rope.scaling.factor", 1.0))


def _frequency_factors(fields: Fields, container: Container, rope_dim: int) -> tuple[float, ...] | None:
    """Llama 3.1 files carry their frequency scaling as a tensor of divisors."""
    name = "rope_freqs.weight"
    info = container.tensors.get(name)
    if info is None:
        return None
    if info.format != "F32" or info.shape != (rope_dim // 2,):
        fields.fail(name, f"is {info.format} {info.shape}, must be F32 with {rope_dim // 2} values")
    factors = container.tensor(name).data.view(np.float32)
    if not (np.isfinite(factors) & (factors > 0)).all():
        fields.fail(name, "holds values that are not positive")
    return tuple(float(factor) for factor in factors)


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` llama or mistral."""
    width = fields.integer("hidden_size", low=1)
    heads = fields.integer("num_attention_heads", low=1)
    head_dim = fields.integer("head_dim", width // heads, low=1)
    if fields.flag("attention_bias", False) or fields.flag("mlp_bias", False):
        fields.fail("attention_bias", "is true; llama models with biases are not supported")
    window = fields.integer("sliding_window", 0)
    return uniform_spec(
        name=fields.source,
        family="llama",
        vocab_size=fields.integer("vocab_size", low=1),
        layers=fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS),
        width=width,
        heads=heads,
        kv_heads=fields.integer("num_key_value_heads", heads, low=1),
        head_dim=head_dim,
        ffn_width=fields.integer("intermediate_size", low=1),
        context_length=fields.integer("max_position_embeddings", 2048, low=1, high=MAX_CONTEXT),
        positions=config_rope(fields, head_dim),
        norm=Norm(kind="rms", eps=fields.number("rms_norm_eps", 1e-6)),
        tied_head=fields.flag("tie_word_embeddings", False),
        window=window or None,
    )


def config_rope(fields: Fields, head_dim: int) -> Rope:
    """Rotary positions of a `config.json`, in its older (`rope_theta`, `rope_scaling`) and newer
    (`rope_parameters`) spelling."""
    new = fields.table("rope_parameters")
    old = fields.table("rope_scaling")
    scaling = new if new.values else old
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    base = new.number("rope_theta", fields.number("rope_theta", 10_000.0))
    rope = Rope(base=base, dim=head_dim, pairing="half")
    if kind == "default":
        return rope
    if kind not in ("llama3", "linear"):
        scaling.fail("rope_type", f"is {kind!r}; default, linear and llama3 are supported")
    if kind == "linear":
        return dataclasses.replace(rope, scaling=RopeScaling(kind="linear", factor=scaling.number("factor")))
    scaled = RopeScaling(
        kind="llama3",
        factor=scaling.number("factor"),
        low_freq_factor=scaling.number("low_freq_factor"),
        high_freq_factor=scaling.number("high_freq_factor"),
        original_context=scaling.integer("original_max_position_embeddings", low=1),
    )
    return dataclasses.replace(rope, scaling=scaled)


FAMILY = Family(
    name="llama",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
)
