"""Llama 1 to 3.2, Yi, Skywork, InternLM 1 and 3, SmolLM 1 and 2, TinyLlama: pre-RMSNorm, SwiGLU, RoPE.

GGUF files of this architecture hold query and key rows reordered so that rotary pairs are
neighbours (`pairing="interleaved"`); Hugging Face folders keep the halves apart.
"""

from __future__ import annotations

from typing import Any

from pentad.execution.spec import ModelSpec, Norm
from pentad.model.families import experts
from pentad.model.families.base import Family
from pentad.model.families.describe import activation, config_decoder, gguf_decoder
from pentad.model.families.places import Names
from pentad.model.families.rotary import Pairing, config_rope, gguf_rope, with_dual_chunks
from pentad.model.files.fields import Fields
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
_BIASED = {"attn_q": "qkv", "attn_output": "out", "ffn_up": "ffn"}


def describe_gguf(
    fields: Fields,
    container: Container,
    *,
    family: str = "llama",
    pairing: Pairing = "interleaved",
    **parts: Any,
) -> ModelSpec:
    """The spec of a GGUF file of architecture `llama`, or of one laid out like it.

    Args:
        pairing: whether rows of queries and keys were reordered.
        parts: what differs, as `gguf_decoder` takes it.
    """
    biases = frozenset(b for name, b in _BIASED.items() if f"blk.0.{name}.bias" in container.tensors)
    common: dict[str, Any] = {
        "positions": lambda head_dim: gguf_rope(fields, container, head_dim, pairing=pairing),
        "window": fields.integer("attention.sliding_window", 0) or None,
        "biases": biases,
    }
    spec = gguf_decoder(fields, container, family, **(common | parts))
    if fields.integer("expert_count", 0):  # Mixtral's files say that they are Llama's
        return experts.with_experts(spec, experts.gguf_experts(fields, scores="softmax_chosen"))
    return spec


def describe_config(fields: Fields, *, family: str = "llama", **parts: Any) -> ModelSpec:
    """The spec of a `config.json` with `model_type` llama, or of one like it.

    Args:
        parts: what differs, as `config_decoder` takes it.
    """
    attention, ffn = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    both = fields.flag("bias", False)  # InternLM 1: all but the feed-forward
    biases = {"qkv", "out"} if attention or both else set()
    common: dict[str, Any] = {
        "positions": lambda head_dim: config_rope(fields, head_dim),
        "norm": Norm(kind="rms", eps=fields.number("rms_norm_eps", 1e-6)),
        "activation": activation(fields),
        "tied_head": fields.flag("tie_word_embeddings", False),
        "biases": frozenset(biases | ({"ffn"} if ffn else set())),
    }
    return with_dual_chunks(fields, config_decoder(fields, family, **(common | parts)))


FAMILY = Family(
    name="llama",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
)
