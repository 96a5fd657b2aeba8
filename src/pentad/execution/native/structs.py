"""The C interface of the kernels (kernels/native.h) as ctypes structures, field by field."""

from __future__ import annotations

import ctypes
from types import MappingProxyType
from typing import Final

INTERFACE: Final = 17
"""PENTAD_INTERFACE of native.h. A library built from another one is refused."""

_i32, _u64, _f64, _address = ctypes.c_int32, ctypes.c_uint64, ctypes.c_double, ctypes.c_void_p


PAGER: Final = ctypes.CFUNCTYPE(None, _address, _i32, ctypes.POINTER(_i32), ctypes.POINTER(_i32), _i32)
"""pentad_pager"""


class Rotation(ctypes.Structure):
    """pentad_rotation"""

    _fields_ = (
        ("dim", _i32),
        ("magnitude", ctypes.c_float),
        ("inverse_frequencies", _address),
        ("length", _i32),
        ("reach", _i32),
    )


class MixerNumbers(ctypes.Structure):
    """pentad_mixer"""

    _fields_ = (
        ("kind", _i32),
        ("heads", _i32),
        ("groups", _i32),
        ("key_dim", _i32),
        ("value_dim", _i32),
        ("conv", _i32),
        ("channels", _i32),
        ("norm_groups", _i32),
        ("eps", ctypes.c_float),
        ("least_step", ctypes.c_float),
        ("most_step", ctypes.c_float),
        ("plain_dim", _i32),
        ("out_dim", _i32),
        ("query_rank", _i32),
    )


class Config(ctypes.Structure):
    """pentad_config"""

    _fields_ = (
        ("layers", _i32),
        ("width", _i32),
        ("heads", _i32),
        ("kv_heads", _i32),
        ("head_dim", _i32),
        ("ffn_width", _i32),
        ("vocab", _i32),
        ("rotation_count", _i32),
        ("threads", _i32),
        ("num_blocks", _i32),
        ("max_tokens", _i32),
        ("max_context", _i32),
        ("key_bits", _i32),
        ("value_bits", _i32),
        ("attention_scores", _i32),
        ("key_centres", _i32),
        ("shared_values", _i32),
        ("rotations", _address),
        ("mixers", _address),
    )


class Batch(ctypes.Structure):
    """pentad_batch"""

    _fields_ = (
        ("tokens", _i32),
        ("sequences", _i32),
        ("rows", _i32),
        ("table_width", _i32),
        ("token_ids", _address),
        ("positions", _address),
        ("slots", _address),
        ("starts", _address),
        ("context_lens", _address),
        ("block_tables", _address),
        ("logit_rows", _address),
        ("logits", _address),
        ("argmax", _address),
        ("drafted", _address),
        ("tree_slots", _address),
        ("tree_masks", _address),
        ("by_head", _i32),
        ("head_width", _i32),
        ("head_pages", _address),
        ("head_lens", _address),
        ("embeddings", _address),
        ("embedding_rows", _address),
        ("embedding_count", _i32),
        ("save_count", _i32),
        ("state_rows", _address),
        ("state_saves", _address),
        ("hidden", _address),
    )


class DrawRow(ctypes.Structure):
    """pentad_draw_row"""

    _fields_ = (
        ("temperature", _f64),
        ("top_p", _f64),
        ("min_p", _f64),
        ("presence_penalty", _f64),
        ("frequency_penalty", _f64),
        ("repetition_penalty", _f64),
        ("seed", _u64),
        ("choice", _u64),
        ("position", _u64),
        ("mask", _address),
        ("raw", _address),
        ("mask_words", _i32),
        ("top_k", _i32),
        ("alternatives", _i32),
        ("alternatives_at", _i32),
        ("seen", _i32),
        ("seen_count", _i32),
        ("counted", _i32),
        ("counted_count", _i32),
        ("biased", _i32),
        ("biased_count", _i32),
        ("biases", _i32),
        ("banned", _i32),
        ("banned_count", _i32),
        ("reserved", _i32),
    )


class DrawnRow(ctypes.Structure):
    """pentad_drawn"""

    _fields_ = (
        ("token", _i32),
        ("status", _i32),
        ("alternatives", _i32),
        ("reserved", _i32),
        ("logprob", _f64),
    )


class Draws(ctypes.Structure):
    """pentad_draws"""

    _fields_ = (
        ("count", _i32),
        ("reserved", _i32),
        ("lines", _address),
        ("rows", _address),
        ("ids", _address),
        ("biases", _address),
        ("drawn", _address),
        ("alternative_tokens", _address),
        ("alternative_logprobs", _address),
    )


class EncoderConfig(ctypes.Structure):
    """pentad_encoder_config"""

    _fields_ = (
        ("layers", _i32),
        ("width", _i32),
        ("heads", _i32),
        ("head_dim", _i32),
        ("ffn_width", _i32),
        ("vocab", _i32),
        ("activation", _i32),
        ("threads", _i32),
        ("max_tokens", _i32),
        ("eps", ctypes.c_float),
    )


class ProgramOp(ctypes.Structure):
    """pentad_op"""

    _fields_ = (
        ("kind", _i32),
        ("layer", _i32),
        ("tensor", _i32),
        ("collective", _i32),
        ("centred", _i32),
        ("activation", _i32),
        ("rotation", _i32),
        ("window", _i32),
        ("apart", _i32),
        ("offset", _i32),
        ("gated", _i32),
        ("chunk", _i32),
        ("each", _i32),
        ("norm_last", _i32),
        ("period", _i32),
        ("smooth", _i32),
        ("interleaved", _i32),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("cap", ctypes.c_float),
        ("clip", ctypes.c_float),
        ("growth", ctypes.c_float),
    )


class ExpertChoice(ctypes.Structure):
    """pentad_experts"""

    _fields_ = (
        ("count", _i32),
        ("per_token", _i32),
        ("width", _i32),
        ("shared_width", _i32),
        ("scores", _i32),
        ("normalised", _i32),
        ("choice_bias", _i32),
        ("groups", _i32),
        ("chosen_groups", _i32),
        ("weigh_inputs", _i32),
        ("weight_scale", ctypes.c_float),
        ("rivals_within", ctypes.c_float),
    )


STRUCTS: Final = (
    *(Config, Batch, DrawRow, DrawnRow, Draws, EncoderConfig, ProgramOp, Rotation, ExpertChoice),
    MixerNumbers,
)
"""In the order of pentad_struct_bytes."""

OPS: Final = MappingProxyType(
    {
        kind: code
        for code, kind in enumerate(
            (
                *("embed", "norm", "qkv", "attend", "out", "gate_up", "down", "head"),
                *("positions", "renorm", "add", "up", "attn_gate", "route", "experts_in", "experts_out"),
                *("convolve", "recur", "gate_out", "latent", "latent_out"),
            )
        )
    }
)
"""Kind of an op to pentad_op_kind."""

COLLECTIVES: Final = MappingProxyType({None: 0, "sum": 1, "gather": 2})
"""How ranks meet behind an op, to the number in pentad_op."""

ACTIVATIONS: Final = MappingProxyType(
    {name: code for code, name in enumerate(("gelu", "gelu_tanh", "relu", "silu", "clamped", "relu_squared"))}
)
"""Activation to pentad_activation."""

MIXERS: Final = MappingProxyType(
    {
        name: code
        for code, name in enumerate(("none", "attention", "gated_delta", "mamba2", "convolution", "latent"))
    }
)
"""Kind of a mixer to pentad_mixer_kind."""

EXPERT_SCORES: Final = MappingProxyType({"softmax": 0, "sigmoid": 1, "softmax_chosen": 2, "one_by_one": 3})
"""How scores of experts become weights, to pentad_expert_scores."""

ENCODER_TENSORS: Final = MappingProxyType(
    {
        name: code
        for code, name in enumerate(
            (
                *("embed", "positions", "embed_norm", "q", "k", "v", "o", "up", "down"),
                *("attn_norm", "ffn_norm", "qkv.bias", "o.bias", "up.bias", "down.bias"),
            )
        )
    }
)
"""Name, without its layer, to pentad_encoder_tensor."""

FORMATS: Final = MappingProxyType(
    {
        name: code
        for code, name in enumerate(
            ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "MXFP4")
        )
    }
)
"""Stored format to the Format of pack.h."""

PACKED_BITS: Final = MappingProxyType(
    dict.fromkeys(FORMATS, 8.5)
    | dict.fromkeys(("Q4_1", "Q4_K"), 5.0)
    | dict.fromkeys(("Q5_1", "Q5_K"), 6.0)
    | {"Q4_0": 4.5, "Q5_0": 5.5, "MXFP4": 5.5, "Q6_K": 7.0}
)
"""Stored format to the bits of a weight once packed, scales and minima included (layout_of in pack.cpp)."""

_TENSORS: Final = MappingProxyType(
    {
        name: code
        for code, name in enumerate(
            (
                *("embed", "head", "final_norm", "attn_norm", "q", "k", "v", "o"),
                *("ffn_norm", "gate", "up", "down", "q.bias", "k.bias", "v.bias", "q_norm", "k_norm"),
                *("o.bias", "gate.bias", "up.bias", "down.bias", "head.bias", "final_norm.bias"),
                *("attn_norm.bias", "ffn_norm.bias", "attn_out_norm", "attn_out_norm.bias"),
                *("ffn_out_norm", "ffn_out_norm.bias", "embed_norm", "embed_norm.bias", "positions"),
                *("attn_gate", "sinks", "slopes"),
                *("router", "router.bias", "shared_gate", "experts.gate", "experts.up", "experts.down"),
                *("experts.gate.bias", "experts.up.bias", "experts.down.bias"),
                *("z", "conv", "conv.bias", "step", "step.bias", "rate", "decay", "skip", "inner_norm"),
                *("in", "in.bias", "q_down", "kv_down", "kv_norm", "k_up", "v_up"),
            )
        )
    }
)
_SHARED: Final = ("gate", "up", "down", "gate.bias", "up.bias", "down.bias")
TENSORS: Final = MappingProxyType(_TENSORS | {f"shared.{name}": _TENSORS[name] for name in _SHARED})
"""Canonical name, without its layer, to pentad_tensor."""
