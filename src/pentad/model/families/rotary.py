"""Rotary positions as descriptions spell them, with every scaling that is published."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from pentad.execution.layers import Block
from pentad.execution.mixers import Attention
from pentad.execution.positions import DualChunks, Growth, Rope, RopeScaling
from pentad.execution.spec import ModelSpec
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

Pairing = Literal["half", "interleaved"]
KINDS = "default, mrope, linear, dynamic, yarn, longrope and llama3"


def config_rope(
    fields: Fields,
    head_dim: int,
    *,
    pairing: Pairing = "half",
    base: float = 10_000.0,
    turned: float = 1.0,
    table: Fields | None = None,
) -> Rope:
    """Rotary positions of a `config.json`, in its older (`rope_theta`, `rope_scaling`) and newer
    (`rope_parameters`) spelling.

    Args:
        base: where the config names none.
        turned: share of a head that turns, where the config names none.
        table: the newer spelling of one kind of layer, where kinds differ.
    """
    new = fields.table("rope_parameters") if table is None else table
    old = fields.table("rope_scaling")
    scaling = new if new.values else old
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    share = new.number("partial_rotary_factor", fields.number("partial_rotary_factor", turned))
    dim = int(head_dim * share)
    if dim < 2 or dim > head_dim or dim % 2:
        what = f"is {share}, so {dim} of {head_dim} elements of a head would turn"
        fields.fail("partial_rotary_factor", what)
    theta = new.number("rope_theta", fields.number("rope_theta", base))
    rope = Rope(base=theta, dim=dim, pairing=pairing)
    match kind:
        case "default" | "mrope":  # whose three positions are one for text
            scaling.has("mrope_section")
            scaling.has("mrope_interleaved")
            return rope
        case "linear":
            return replace(rope, scaling=RopeScaling(kind="linear", factor=scaling.number("factor")))
        case "dynamic":
            return _dynamic(rope, fields, scaling)
        case "llama3":
            return _llama3(rope, scaling)
        case "yarn":
            return _yarn(rope, fields, scaling)
    if kind not in ("longrope", "su"):
        scaling.fail("rope_type", f"is {kind!r}; {KINDS} are supported")
    return _longrope(rope, fields, scaling)


def typed_ropes(
    fields: Fields, head_dim: int, bases: dict[str, float], *, pairing: Pairing = "half"
) -> dict[str, Rope]:
    """The rotation of each kind of layer, by the kind's name.

    Args:
        bases: kind to its base where the config names none; one table may serve all kinds.
    """
    table = fields.table("rope_parameters")
    if not any(kind in table.values for kind in bases):
        return {kind: config_rope(fields, head_dim, base=b, pairing=pairing) for kind, b in bases.items()}
    return {
        kind: config_rope(fields, head_dim, base=base, pairing=pairing, table=table.table(kind))
        for kind, base in bases.items()
    }


def with_dual_chunks(fields: Fields, spec: ModelSpec) -> ModelSpec:
    """The spec, with positions that stay in the trained range where a `dual_chunk_attention_config` asks for
    it, and queries that grow beyond the trained context where it names that (Qwen 2.5 1M).

    What it says of sparse attention leaves out slots to save time, and is not needed.
    """
    table = fields.table("dual_chunk_attention_config")
    if not table.values:
        return spec
    reach = table.integer("chunk_size", low=2)
    dual = DualChunks(length=reach - table.integer("local_size", low=1), reach=reach)
    trained = table.integer("original_max_position_embeddings", 0)
    growth = Growth(weight=0.1, period=trained, offset=1, steps=False) if trained else None
    for key in table.values:
        if key.startswith("sparse_attention"):
            table.has(key)

    def remapped(block: Block) -> Block:
        mixer = block.mixer
        if not isinstance(mixer, Attention) or not isinstance(mixer.positions, Rope):
            return block
        rope = replace(mixer.positions, dual=dual)
        return replace(block, mixer=replace(mixer, positions=rope, growth=growth))

    return spec.with_blocks(remapped)


def _original(fields: Fields, scaling: Fields) -> int:
    """The length that the model was trained at before it was stretched."""
    key = "original_max_position_embeddings"
    outer = fields.integer(key, fields.integer("max_position_embeddings", 2048, low=1), low=1)
    return scaling.integer(key, outer, low=2)


def _dynamic(rope: Rope, fields: Fields, scaling: Fields) -> Rope:
    """The published rule changes frequencies beyond `max_position_embeddings` alone, which is where a
    context ends; up to there nothing is scaled."""
    if scaling.number("factor") < 1:
        scaling.fail("factor", "is below 1")
    scaling.has("original_max_position_embeddings")
    fields.has("original_max_position_embeddings")
    return rope


def _llama3(rope: Rope, scaling: Fields) -> Rope:
    scaled = RopeScaling(
        kind="llama3",
        factor=scaling.number("factor"),
        low_freq_factor=scaling.number("low_freq_factor"),
        high_freq_factor=scaling.number("high_freq_factor"),
        original_context=scaling.integer("original_max_position_embeddings", low=1),
    )
    return replace(rope, scaling=scaled)


def _yarn(rope: Rope, fields: Fields, scaling: Fields) -> Rope:
    original = _original(fields, scaling)
    stretched = fields.integer("max_position_embeddings", original, low=1)
    factor = scaling.number("factor", stretched / original)
    own, all_dim = scaling.number("mscale", 0.0), scaling.number("mscale_all_dim", 0.0)
    grown = _mscale(factor, own) / _mscale(factor, all_dim) if own and all_dim else _mscale(factor, 1.0)
    scaled = RopeScaling(
        kind="yarn",
        factor=factor,
        original_context=original,
        fast_turns=scaling.number("beta_fast", 32.0),
        slow_turns=scaling.number("beta_slow", 1.0),
        magnitude=scaling.number("attention_factor", grown),
        whole_pairs=scaling.flag("truncate", True),
    )
    return replace(rope, scaling=scaled)


def _mscale(factor: float, weight: float) -> float:
    """By how much scores grow with a stretch (Peng et al. 2023, section 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _longrope(rope: Rope, fields: Fields, scaling: Fields) -> Rope:
    """The divisors of the whole context, for short texts too: what is cached can't be turned anew."""
    original = _original(fields, scaling)
    context = fields.integer("max_position_embeddings", original, low=1)
    factor = scaling.number("factor", context / original)
    grown = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    which = "long" if context > original else "short"
    grown = {name: scaling.number(f"{name}_mscale", grown) for name in ("short", "long")}[which]
    tables = {key: scaling.numbers(key, rope.dim // 2) for key in ("short_factor", "long_factor")}
    return replace(
        rope,
        frequency_factors=tables[f"{which}_factor"],
        scaling=RopeScaling(
            kind="longrope", original_context=original, magnitude=scaling.number("attention_factor", grown)
        ),
    )


def gguf_rope(
    fields: Fields, container: Container, head_dim: int, *, pairing: Pairing, base: float = 10_000.0
) -> Rope:
    """Rotary positions of GGUF metadata, with the divisors that a file may ship as tensors."""
    dim = fields.integer("rope.dimension_count", head_dim, low=2)
    if dim > head_dim or dim % 2:
        fields.fail("rope.dimension_count", f"is {dim}, must be even and at most {head_dim}")
    rope = Rope(base=fields.number("rope.freq_base", base), dim=dim, pairing=pairing)
    context = fields.integer("context_length", 0)
    original = fields.integer("rope.scaling.original_context_length", context)
    if "rope_factors_long.weight" in container.tensors:
        name = f"rope_factors_{'long' if context > original else 'short'}.weight"
        grown = fields.number("rope.scaling.attn_factor", 1.0)
        scaling = RopeScaling(kind="longrope", original_context=original, magnitude=grown)
        return replace(rope, scaling=scaling, frequency_factors=_divisors(fields, container, name, dim))
    if "rope_freqs.weight" in container.tensors:
        return replace(rope, frequency_factors=_divisors(fields, container, "rope_freqs.weight", dim))
    return replace(rope, scaling=_gguf_scaling(fields, original))


def _gguf_scaling(fields: Fields, original: int) -> RopeScaling | None:
    kind = fields.text("rope.scaling.type", "none")
    if kind in ("none", "longrope"):
        return None
    if kind not in ("linear", "yarn"):
        fields.fail("rope.scaling.type", f"is {kind!r}; none, linear, yarn and longrope are supported")
    factor = fields.number("rope.scaling.factor", 1.0)
    if kind == "linear":
        return RopeScaling(kind="linear", factor=factor)
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_context=original,
        fast_turns=fields.number("rope.scaling.yarn_beta_fast", 32.0),
        slow_turns=fields.number("rope.scaling.yarn_beta_slow", 1.0),
        magnitude=_mscale(factor, 1.0) * fields.number("rope.scaling.attn_factor", 1.0),
    )


def _divisors(fields: Fields, container: Container, name: str, dim: int) -> tuple[float, ...]:
    """Per-pair divisors of frequencies: Llama 3.1 and LongRoPE files carry their scaling so."""
    info = container.tensors.get(name)
    if info is None:
        fields.fail(name, "is not among the tensors")
    if info.format != "F32" or info.shape != (dim // 2,):
        fields.fail(name, f"is {info.format} {info.shape}, must be F32 with {dim // 2} values")
    factors = container.tensor(name).data.view(np.float32)
    if not (np.isfinite(factors) & (factors > 0)).all():
        fields.fail(name, "holds values that are not positive")
    return tuple(float(factor) for factor in factors)
