"""Nemotron-H: layers of one part each: Mamba-2, attention without positions, squared ReLU, experts of it."""

from __future__ import annotations

import math

from pentad.execution.layers import Block, Experts, FeedForward
from pentad.execution.mixers import Attention, Norm, Recurrent
from pentad.execution.spec import Head, ModelSpec, Stack
from pentad.model.families import experts, mamba
from pentad.model.families.base import Family
from pentad.model.families.describe import needs
from pentad.model.families.places import Name, Names, Place, Site
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container

_MIXER = "backbone.layers.{i}.mixer."
_MAMBA = mamba.config_names("backbone.layers.{i}.mixer")
_PATTERN = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
_OLDER = {"mamba": "linear_attention", "attention": "full_attention"}


def _attends(site: Site) -> bool:
    return isinstance(site.block.mixer, Attention)


def _q(site: Site) -> Name:
    return f"{_MIXER}q_proj" if _attends(site) else _MAMBA["layers.{i}.q"]


def _k(site: Site) -> Name:
    return f"{_MIXER}k_proj" if _attends(site) else _MAMBA["layers.{i}.k"]


def _v(site: Site) -> Name:
    return f"{_MIXER}v_proj" if _attends(site) else _MAMBA["layers.{i}.v"]


CONFIG_NAMES: Names = {
    "embed": "backbone.embeddings",
    "final_norm": "backbone.norm_f",
    "head": "lm_head",
    "layers.{i}.attn_norm": "backbone.layers.{i}.norm",
    "layers.{i}.ffn_norm": "backbone.layers.{i}.norm",
    **_MAMBA,
    "layers.{i}.q": _q,
    "layers.{i}.k": _k,
    "layers.{i}.v": _v,
    "layers.{i}.o": lambda site: _MIXER + ("o_proj" if _attends(site) else "out_proj"),
    "layers.{i}.up": _MIXER + "up_proj",
    "layers.{i}.down": _MIXER + "down_proj",
    **experts.config_names("backbone.layers.{i}.mixer", "gate_proj", "up_proj", "down_proj"),
    **experts.shared_names("backbone.layers.{i}.mixer.shared_experts"),
    "layers.{i}.router.bias": Place(name=_MIXER + "gate.e_score_correction_bias", suffix=""),
}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` nemotron_h."""
    needs(fields, "mamba_hidden_act", "silu")
    for flag in ("attention_bias", "mlp_bias", "use_bias", "mamba_proj_bias"):
        if fields.flag(flag, False):
            fields.fail(flag, "is true; matrices without biases are supported")
    if fields.has("moe_latent_size"):
        fields.fail("moe_latent_size", "is set; experts of the model's width are supported")
    if (activation := fields.text("mlp_hidden_act", "relu2")) != "relu2":
        fields.fail("mlp_hidden_act", f"is {activation!r}; relu2 is supported")
    eps = fields.number("layer_norm_epsilon", 1e-5)
    norm = Norm(eps=eps)
    parts = {
        "linear_attention": Block(mixer=_mamba(fields, eps), feed_forward=None, norm=norm),
        "full_attention": Block(
            mixer=Attention(
                heads=fields.integer("num_attention_heads", low=1),
                kv_heads=fields.integer("num_key_value_heads", low=1),
                head_dim=fields.integer("head_dim", low=1),
            ),
            feed_forward=None,
            norm=norm,
        ),
        "mlp": Block(mixer=None, feed_forward=_relu(fields.integer("intermediate_size", low=1)), norm=norm),
    }
    kinds = _kinds(fields)
    if "moe" in kinds:
        parts["moe"] = Block(mixer=None, feed_forward=_experts(fields), norm=norm)
    return ModelSpec(
        name=fields.source,
        family="nemotron_h",
        vocab_size=fields.integer("vocab_size", low=1),
        context_length=fields.integer("max_position_embeddings", low=1, high=MAX_CONTEXT),
        stack=Stack(
            width=fields.integer("hidden_size", low=1),
            blocks=tuple(parts[kind] for kind in kinds),
            final_norm=norm,
        ),
        head=Head(tied=fields.flag("tie_word_embeddings", False)),
    )


def _kinds(fields: Fields) -> list[str]:
    """The part of each layer, as a list or as letters."""
    names = fields.value("layers_block_type", None) or fields.value("layer_types", None)
    if names is None:
        names = [_PATTERN.get(letter, letter) for letter in fields.text("hybrid_override_pattern")]
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_LAYERS:
        fields.fail("layers_block_type", "must name the part of each layer")
    found = [_OLDER.get(name, name) for name in map(str, names)]
    if unknown := set(found) - set(_PATTERN.values()):
        fields.fail("layers_block_type", f"names {', '.join(sorted(unknown))}, which no layer is")
    return found


def _relu(width: int) -> FeedForward:
    return FeedForward(width=width, activation="relu_squared", gated=False)


def _mamba(fields: Fields, eps: float) -> Recurrent:
    groups = fields.integer("n_groups", low=1)
    return Recurrent(
        rule="mamba2",
        heads=fields.integer("mamba_num_heads", low=1),
        value_dim=fields.integer("mamba_head_dim", low=1),
        groups=groups,
        key_dim=fields.integer("ssm_state_size", low=1),
        conv=fields.integer("conv_kernel", 4, low=1),
        conv_bias=fields.flag("use_conv_bias", True),
        norm_groups=groups,
        norm_eps=eps,
        step_limits=(fields.number("time_step_min", 0.001), math.inf),
    )


def _experts(fields: Fields) -> Experts:
    shared = fields.integer("n_shared_experts", 0) * fields.integer("moe_shared_expert_intermediate_size", 0)
    return Experts(
        count=fields.integer("n_routed_experts", low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("num_experts_per_tok", low=1),
        expert=_relu(fields.integer("moe_intermediate_size", low=1)),
        shared=_relu(shared) if shared else None,
        scores="sigmoid",
        normalised=fields.flag("norm_topk_prob", True),
        router_bias="choice",
        weight_scale=fields.number("routed_scaling_factor", 1.0),
        groups=fields.integer("n_group", 1, low=1),
        chosen_groups=fields.integer("topk_group", 1, low=1),
    )


def _no_gguf(fields: Fields, container: Container) -> ModelSpec:  # noqa: ARG001 - the interface's
    fields.fail("general.architecture", "is read from Hugging Face folders alone")


_HARMLESS = """
residual_in_fp32 rescale_prenorm_residual time_step_rank time_step_min time_step_max time_step_floor
chunk_size expand use_mamba_kernels time_step_limit num_logits_to_keep mamba_ssm_cache_dtype
moe_shared_expert_overlap mtp_layers_block_type num_nextn_predict_layers rms_norm_eps rope_theta
partial_rotary_factor
"""
FAMILY = Family(
    name="nemotron_h",
    describe_gguf=_no_gguf,
    describe_config=describe_config,
    gguf_names={},
    config_names=CONFIG_NAMES,
    harmless=frozenset(_HARMLESS.split()),
)
