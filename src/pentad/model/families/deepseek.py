"""DeepSeek-V2, V3 and R1: latent attention, a few dense layers in front of layers of experts.

Rotated numbers are neighbours in every file (`pairing="interleaved"`) and stand behind the others of a head.
Hugging Face folders hold what makes keys and values as one matrix, head by head; GGUF files hold two, that
of the keys transposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pentad.execution.layers import Block, Experts, FeedForward
from pentad.execution.mixers import LatentAttention, Norm
from pentad.execution.positions import Rope, RopeScaling
from pentad.execution.spec import Head, ModelSpec, Stack
from pentad.model.families import experts, llama
from pentad.model.families.base import Family
from pentad.model.families.describe import needs
from pentad.model.families.places import Names, Place, Reshaped, Rows, Site, Transposed
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container

_ORDINARY = tuple(f"layers.{{i}}.{name}" for name in "qkv")


def _latent(site: Site) -> LatentAttention:
    mixer = site.block.mixer
    assert isinstance(mixer, LatentAttention)
    return mixer


def _key_rows(site: Site) -> int:
    return _latent(site).nope_dim


def _value_rows(site: Site) -> int:
    return _latent(site).value_dim


def _head_rows(site: Site) -> int:
    return _key_rows(site) + _value_rows(site)


def _ups(name: str) -> dict[str, Place]:
    """Keys, then values of each head."""
    keys = Rows(start=lambda _: 0, count=_key_rows, period=_head_rows)
    values = Rows(start=_key_rows, count=_value_rows, period=_head_rows)
    return {
        "layers.{i}.k_up": Place(name=name, steps=(keys,)),
        "layers.{i}.v_up": Place(name=name, steps=(values,)),
    }


_SPLIT_UPS = {
    "layers.{i}.k_up": Place(
        name="blk.{i}.attn_k_b",
        steps=(
            Transposed(),
            Reshaped(to=lambda site: (_latent(site).heads * _key_rows(site), _latent(site).kv_rank)),
        ),
    ),
    "layers.{i}.v_up": Place(
        name="blk.{i}.attn_v_b",
        steps=(Reshaped(to=lambda site: (_latent(site).heads * _value_rows(site), _latent(site).kv_rank)),),
    ),
}


def _queries(plain: str, up: str) -> Callable[[Site], str]:
    """Queries are made of the hidden state, or of a latent vector."""
    return lambda site: plain if _latent(site).q_rank is None else up


GGUF_NAMES: Names = {
    **{name: place for name, place in llama.GGUF_NAMES.items() if name not in _ORDINARY},
    "layers.{i}.q": _queries("blk.{i}.attn_q", "blk.{i}.attn_q_b"),
    "layers.{i}.q_down": "blk.{i}.attn_q_a",
    "layers.{i}.q_norm": "blk.{i}.attn_q_a_norm",
    "layers.{i}.kv_down": "blk.{i}.attn_kv_a_mqa",
    "layers.{i}.kv_norm": "blk.{i}.attn_kv_a_norm",
    **_SPLIT_UPS,
    **experts.GGUF_NAMES,
    **experts.CHOICE_BIAS,
}
CONFIG_NAMES: Names = {
    **{name: place for name, place in llama.CONFIG_NAMES.items() if name not in _ORDINARY},
    "layers.{i}.q": _queries("model.layers.{i}.self_attn.q_proj", "model.layers.{i}.self_attn.q_b_proj"),
    "layers.{i}.q_down": "model.layers.{i}.self_attn.q_a_proj",
    "layers.{i}.q_norm": "model.layers.{i}.self_attn.q_a_layernorm",
    "layers.{i}.kv_down": "model.layers.{i}.self_attn.kv_a_proj_with_mqa",
    "layers.{i}.kv_norm": "model.layers.{i}.self_attn.kv_a_layernorm",
    **_ups("model.layers.{i}.self_attn.kv_b_proj"),
    **experts.config_names("model.layers.{i}.mlp", "gate_proj", "up_proj", "down_proj"),
    **experts.shared_names("model.layers.{i}.mlp.shared_experts"),
    "layers.{i}.router.bias": Place(name="model.layers.{i}.mlp.gate.e_score_correction_bias", suffix=""),
}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` deepseek_v2 or deepseek_v3."""
    needs(fields, "attention_bias", False)
    needs(fields, "mlp_bias", False)
    needs(fields, "rope_interleave", True)
    needs(fields, "hidden_act", "silu")
    scaling = fields.table("rope_parameters")
    scaling = scaling if scaling.values else fields.table("rope_scaling")
    nope, turned = fields.integer("qk_nope_head_dim", low=1), fields.integer("qk_rope_head_dim", low=2)
    rope = Rope(
        base=scaling.number("rope_theta", fields.number("rope_theta", 10_000.0)),
        dim=turned,
        pairing="interleaved",
        scaling=_config_scaling(scaling),
    )
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    every = scaling.number("mscale_all_dim", 0.0) if kind == "yarn" else 0.0
    stretch = scaling.number("factor", 1.0)
    layers = fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    dense = min(fields.integer("first_k_dense_replace", 0), layers)
    return _spec(
        fields.source,
        vocab=fields.integer("vocab_size", low=1),
        width=fields.integer("hidden_size", low=1),
        context=fields.integer("max_position_embeddings", low=1, high=MAX_CONTEXT),
        mixer=LatentAttention(
            heads=fields.integer("num_attention_heads", low=1),
            kv_rank=fields.integer("kv_lora_rank", low=1),
            nope_dim=nope,
            value_dim=fields.integer("v_head_dim", low=1),
            rope=rope,
            q_rank=fields.integer("q_lora_rank", low=1) if fields.has("q_lora_rank") else None,
            scale=_scale(nope + turned, stretch, every),
        ),
        norm=Norm(eps=fields.number("rms_norm_eps", 1e-6)),
        feed_forwards=(
            *(FeedForward(width=fields.integer("intermediate_size", low=1)),) * dense,
            *((_config_experts(fields),) * (layers - dense) if dense < layers else ()),
        ),
        tied=fields.flag("tie_word_embeddings", False),
    )


def _config_experts(fields: Fields) -> Experts:
    """V3 chooses by sigmoid scores and a bias, V2 by softmax."""
    third = fields.text("model_type") == "deepseek_v3"
    if (step := fields.integer("moe_layer_freq", 1)) != 1:
        fields.fail(
            "moe_layer_freq", f"is {step}; experts in every layer behind the dense ones are supported"
        )
    needs(fields, "scoring_func", "sigmoid" if third else "softmax")
    if not third:
        needs(fields, "norm_topk_prob", False)
    elif fields.has("topk_method"):
        needs(fields, "topk_method", "noaux_tc")
    width = fields.integer("moe_intermediate_size", low=1)
    grouped = third or fields.text("topk_method", "greedy") == "group_limited_greedy"
    shared = width * fields.integer("n_shared_experts", 0)
    return Experts(
        count=fields.integer("n_routed_experts", low=1, high=experts.MAX_EXPERTS),
        per_token=fields.integer("num_experts_per_tok", low=1),
        expert=FeedForward(width=width),
        shared=FeedForward(width=shared) if shared else None,
        scores="sigmoid" if third else "softmax",
        normalised=third and fields.flag("norm_topk_prob", True),
        router_bias="choice" if third else None,
        weight_scale=fields.number("routed_scaling_factor", 1.0),
        groups=fields.integer("n_group", 1, low=1) if grouped else 1,
        chosen_groups=fields.integer("topk_group", 1, low=1) if grouped else 1,
    )


def _config_scaling(scaling: Fields) -> RopeScaling | None:
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    if kind == "default":
        return None
    if kind != "yarn":
        scaling.fail("rope_type", f"is {kind!r}; default and yarn are supported")
    factor = scaling.number("factor")
    some, every = scaling.number("mscale", 0.0), scaling.number("mscale_all_dim", 0.0)
    both = _magnitude(factor, some) / _magnitude(factor, every)
    magnitude = both if some and every else _magnitude(factor, 1.0)
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_context=scaling.integer("original_max_position_embeddings", low=1),
        fast_turns=scaling.number("beta_fast", 32.0),
        slow_turns=scaling.number("beta_slow", 1.0),
        magnitude=scaling.number("attention_factor", magnitude),
    )


def _magnitude(factor: float, weight: float) -> float:
    """How much longer scores grow with the context (Peng et al. 2023, section 3.4, with a weight)."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _scale(key_dim: int, stretch: float, every: float) -> float | None:
    """Factor of the scores where all numbers of keys and queries grow, not the rotated ones alone."""
    return key_dim**-0.5 * _magnitude(stretch, every) ** 2 if every else None


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `deepseek2`."""
    embed = container.tensors.get("token_embd.weight")
    if embed is None:
        fields.fail("token_embd.weight", "is not among the tensors")
    turned = fields.integer("rope.dimension_count", low=2)
    key_dim = fields.integer("attention.key_length_mla", low=turned + 1)
    kind, stretch = fields.text("rope.scaling.type", "none"), fields.number("rope.scaling.factor", 1.0)
    if kind not in ("none", "yarn"):
        fields.fail("rope.scaling.type", f"is {kind!r}; none and yarn are supported")
    context = fields.integer("context_length", low=1, high=MAX_CONTEXT)
    # Files hold a tenth of the weight, and scale all numbers alike.
    every = 10 * fields.number("rope.scaling.yarn_log_multiplier", 0.0) if kind == "yarn" else 0.0
    scaling = RopeScaling(
        kind="yarn",
        factor=stretch,
        original_context=fields.integer("rope.scaling.original_context_length", context, low=1),
        magnitude=1.0 if every else _magnitude(stretch, 1.0),
    )
    layers = fields.integer("block_count", low=1, high=MAX_LAYERS) - fields.integer("nextn_predict_layers", 0)
    dense = min(fields.integer("leading_dense_block_count", 0), layers)
    eps = fields.number("attention.layer_norm_rms_epsilon", 1e-6)
    return _spec(
        fields.source,
        vocab=embed.shape[0],
        width=fields.integer("embedding_length", low=1),
        context=context,
        mixer=LatentAttention(
            heads=fields.integer("attention.head_count", low=1),
            kv_rank=fields.integer("attention.kv_lora_rank", low=1),
            nope_dim=key_dim - turned,
            value_dim=fields.integer("attention.value_length_mla", low=1),
            rope=Rope(
                base=fields.number("rope.freq_base", 10_000.0),
                dim=turned,
                pairing="interleaved",
                scaling=scaling if kind == "yarn" else None,
            ),
            q_rank=fields.integer("attention.q_lora_rank", 0) or None,
            scale=_scale(key_dim, stretch, every),
            norm_eps=eps,
        ),
        norm=Norm(eps=eps),
        feed_forwards=(
            *(FeedForward(width=fields.integer("feed_forward_length", low=1)),) * dense,
            *((_gguf_experts(fields, container, dense),) * (layers - dense) if dense < layers else ()),
        ),
        tied="output.weight" not in container.tensors,
    )


def _gguf_experts(fields: Fields, container: Container, first: int) -> Experts:
    biased = f"blk.{first}.exp_probs_b.bias" in container.tensors
    return experts.gguf_experts(fields, normalised=False, router_bias="choice" if biased else None)


def _spec(
    source: str,
    *,
    vocab: int,
    width: int,
    context: int,
    mixer: LatentAttention,
    norm: Norm,
    feed_forwards: tuple[FeedForward | Experts, ...],
    tied: bool,
) -> ModelSpec:
    blocks = tuple(Block(mixer=mixer, feed_forward=inner, norm=norm) for inner in feed_forwards)
    return ModelSpec(
        name=source,
        family="deepseek",
        vocab_size=vocab,
        context_length=context,
        stack=Stack(width=width, blocks=blocks, final_norm=norm),
        head=Head(tied=tied),
    )


_HARMLESS = """
ep_size seq_aux aux_loss_alpha num_nextn_predict_layers qk_head_dim head_dim num_key_value_heads
moe_intermediate_size n_routed_experts num_experts_per_tok n_shared_experts n_group topk_group topk_method
norm_topk_prob routed_scaling_factor scoring_func moe_layer_freq
"""
FAMILY = Family(
    name="deepseek",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=frozenset(_HARMLESS.split()),
)
