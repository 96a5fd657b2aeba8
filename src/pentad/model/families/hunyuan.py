"""Hunyuan, dense and with experts: the Llama block with norms of queries and keys behind their rotation."""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.positions import Rope
from pentad.execution.spec import ModelSpec
from pentad.model.families import experts, llama, qwen3
from pentad.model.families.base import Family
from pentad.model.families.describe import needs
from pentad.model.families.places import Names
from pentad.model.families.rotary import config_rope
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    "layers.{i}.q_norm": "model.layers.{i}.self_attn.query_layernorm",
    "layers.{i}.k_norm": "model.layers.{i}.self_attn.key_layernorm",
}
MOE_NAMES: Names = {
    **CONFIG_NAMES,
    **experts.config_names("model.layers.{i}.mlp", "gate_proj", "up_proj", "down_proj", router="gate.wg"),
    **experts.shared_names("model.layers.{i}.mlp.shared_mlp"),
}
_HARMLESS = """
attention_head_dim use_qk_norm im_end_id im_newline_id im_start_id text_start_id text_end_id image_token_id
sep_token_id use_cla use_mla use_mixed_mlp_moe norm_type group_limited_greedy enable_lm_head_fp32 pad_id
org_vocab_size mask_init_id position_embedding_xdrope qk_norm cla_share_factor
num_experts moe_topk moe_layer_num_skipped num_shared_expert moe_intermediate_size topk_group n_group
kv_lora_rank q_lora_rank v_head_dim qk_rope_head_dim qk_nope_head_dim routed_scaling_factor
"""


def _rope(fields: Fields, head_dim: int) -> Rope:
    """Its `dynamic` scaling with an `alpha` is a larger base at every length, as NTK-aware scaling has it."""
    rope = config_rope(fields, head_dim)
    new, old = fields.table("rope_parameters"), fields.table("rope_scaling")
    table = new if new.values else old
    alpha = table.number("alpha", 0.0)
    for key in ("mscale", "mscale_all_dim", "beta_fast", "beta_slow"):
        table.has(key)  # read by other scalings alone
    if not alpha or table.text("rope_type", table.text("type", "default")) != "dynamic":
        return rope
    return dataclasses.replace(rope, base=rope.base * alpha ** (head_dim / (head_dim - 2)))


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` hunyuan_v1_dense."""
    spec = llama.describe_config(
        fields, family="hunyuan_v1_dense", positions=lambda dim: _rope(fields, dim), qk_norm=True
    )
    return spec.with_attention(qk_norm_last=True)


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `hunyuan-dense`, whose base is the larger one."""
    spec = llama.describe_gguf(fields, container, family="hunyuan_v1_dense", pairing="half", qk_norm=True)
    return spec.with_attention(qk_norm_last=True)


def describe_moe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` hunyuan_v1_moe."""
    spec = describe_config(fields)
    width, shared = spec.ffn_width, _each(fields, "num_shared_expert", 1)
    if (own := _each(fields, "moe_intermediate_size", width)) != width:
        fields.fail("moe_intermediate_size", f"is {own}, not the {width} of intermediate_size")
    for key, computed in (("moe_layer_num_skipped", 0), ("use_cla", False), ("use_mla", False)):
        needs(fields, key, computed)
    routed = Experts(
        count=_each(fields, "num_experts", None),
        per_token=_each(fields, "moe_topk", 1),
        expert=FeedForward(width=width),
        shared=FeedForward(width=shared * width),
        normalised=True,
    )
    return dataclasses.replace(experts.with_experts(spec, routed), family="hunyuan_v1_moe")


def _each(fields: Fields, key: str, default: int | None) -> int:
    """A number that a config may write for every layer, if they are alike."""
    value = fields.value(key, default)
    if isinstance(value, list) and len(set(map(repr, value))) == 1:
        value = value[0]
    if type(value) is not int or not 0 < value <= experts.MAX_EXPERTS:
        fields.fail(key, f"is {str(value)[:60]}, must be one number for all layers")
    return value


FAMILY = Family(
    name="hunyuan_v1_dense",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=qwen3.GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=frozenset(_HARMLESS.split()),
)
MOE = Family(
    name="hunyuan_v1_moe",
    describe_config=describe_moe_config,
    config_names=MOE_NAMES,
    harmless=FAMILY.harmless,
)
