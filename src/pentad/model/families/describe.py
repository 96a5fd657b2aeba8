"""What descriptions of decoders have in common: sizes, activations, norms and windows, key by key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pentad.execution.layers import Activation
from pentad.execution.mixers import Norm
from pentad.execution.positions import Rope
from pentad.execution.spec import Block, ModelSpec
from pentad.execution.uniform import uniform_spec
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
}
"""As configs name them, to ours; the three tanh forms of GELU are one function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigKeys:
    """How a family's `config.json` names its sizes."""

    layers: str = "num_hidden_layers"
    width: str = "hidden_size"
    heads: str = "num_attention_heads"
    kv_heads: str | None = "num_key_value_heads"
    """None: as many as query heads."""
    head_dim: str | None = "head_dim"
    """None: what fills the width."""
    ffn_width: str = "intermediate_size"
    context: str = "max_position_embeddings"


LLAMA_KEYS = ConfigKeys()
MHA_KEYS = ConfigKeys(kv_heads=None, head_dim=None)
GPT2_KEYS = ConfigKeys(
    layers="n_layer",
    width="n_embd",
    heads="n_head",
    kv_heads=None,
    head_dim=None,
    ffn_width="n_inner",
    context="n_positions",
)


def config_decoder(fields: Fields, family: str, *, keys: ConfigKeys = LLAMA_KEYS, **parts: Any) -> ModelSpec:
    """A decoder of equal layers, in the sizes that a `config.json` names.

    Args:
        keys: their names there. A missing width of the feed-forward is four times the model's.
        parts: what `uniform_spec` takes beside sizes; sizes given here take the place of the config's.
            A `positions` that is callable is given the head size.
    """
    width = fields.integer(keys.width, low=1)
    heads = fields.integer(keys.heads, low=1)
    head_dim = max(1, width // heads)
    if keys.head_dim is not None:
        head_dim = fields.integer(keys.head_dim, head_dim, low=1)
    kv_heads = heads if keys.kv_heads is None else fields.integer(keys.kv_heads, heads, low=1)
    sizes = {
        "vocab_size": fields.integer("vocab_size", low=1),
        "layers": fields.integer(keys.layers, low=1, high=MAX_LAYERS),
        "width": width,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "context_length": fields.integer(keys.context, 2048, low=1, high=MAX_CONTEXT),
    }
    if "ffn_width" not in parts:
        sizes["ffn_width"] = fields.integer(keys.ffn_width, 4 * width, low=1)
    return _decoder(fields, family, sizes, parts)


def gguf_decoder(
    fields: Fields, container: Container, family: str, *, norm: str = "rms", eps: float = 1e-5, **parts: Any
) -> ModelSpec:
    """A decoder of equal layers, in the sizes that GGUF metadata name.

    Args:
        norm: `rms` or `layer`, of every layer; with `norm_bias` false it has no shift.
        eps: where the file names none.
        parts: as for `config_decoder`.
    """
    width = fields.integer("embedding_length", low=1)
    heads = fields.integer("attention.head_count", low=1)
    embed = container.tensors.get("token_embd.weight")
    if embed is None or len(embed.shape) != 2:
        fields.fail("token_embd.weight", "is not among the tensors")
    head_dim = fields.integer("attention.key_length", max(1, width // heads), low=1)
    if fields.integer("attention.value_length", head_dim) != head_dim:
        fields.fail("attention.value_length", f"is not the size of keys, {head_dim}")
    layers = fields.integer("block_count", low=1, high=MAX_LAYERS)
    widths = fields.integers("feed_forward_length", layers, low=1)
    sizes = {
        "vocab_size": embed.shape[0],
        "layers": layers,
        "width": width,
        "heads": heads,
        "kv_heads": fields.integer("attention.head_count_kv", heads, low=1),
        "head_dim": head_dim,
        "ffn_width": widths[0],
        "context_length": fields.integer("context_length", low=1, high=MAX_CONTEXT),
    }
    shifted = bool(parts.pop("norm_bias", True))
    key = "attention.layer_norm_rms_epsilon" if norm == "rms" else "attention.layer_norm_epsilon"
    made = {
        "norm": Norm(kind="rms" if norm == "rms" else "layer", eps=fields.number(key, eps), bias=shifted),
        "tied_head": "output.weight" not in container.tensors,
    }
    spec = _decoder(fields, family, sizes, made | parts)
    return spec if "ffn_width" in parts else with_widths(spec, widths)


def with_widths(spec: ModelSpec, widths: Sequence[int]) -> ModelSpec:
    """The spec whose layers have these dense feed-forwards; as it is where all are alike."""
    if len(set(widths)) == 1:
        return spec
    made: dict[tuple[Block, int], Block] = {}
    for block, width in zip(spec.blocks, widths, strict=True):
        if (block, width) not in made:
            inner = replace(block.feed_forward, width=width)  # type: ignore[type-var]
            made[block, width] = replace(block, feed_forward=inner)
    blocks = tuple(made[pair] for pair in zip(spec.blocks, widths, strict=True))
    return replace(spec, stack=replace(spec.stack, blocks=blocks))


def _decoder(fields: Fields, family: str, sizes: dict[str, int], parts: dict[str, Any]) -> ModelSpec:
    positions = parts.get("positions")
    if callable(positions):
        parts = parts | {"positions": positions(parts.get("head_dim", sizes["head_dim"]))}
    return uniform_spec(**({"name": fields.source, "family": family} | sizes | parts))


def activation(fields: Fields, key: str = "hidden_act", default: str = "silu") -> Activation:
    """The activation that a `config.json` names. Raises BadModelFile for one that is not computed."""
    name = fields.text(key, default)
    if name not in ACTIVATIONS:
        fields.fail(key, f"is the unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def needs(fields: Fields, key: str, value: Any, default: Any = None) -> None:
    """Refuses a config whose `key` says another thing than the one that is computed.

    Args:
        value: what is computed.
        default: what an absent key means; None: `value`.
    """
    said = fields.value(key, value if default is None else default)
    if said != value:
        fields.fail(key, f"is {said!r}; {value!r} is supported")


def layer_kinds(
    fields: Fields,
    layers: int,
    default: Callable[[int], str],
    known: Sequence[str] = ("full_attention", "sliding_attention"),
) -> tuple[str, ...]:
    """The kind of each layer, one of those known, by `layer_types` or the family's pattern."""
    kinds = fields.value("layer_types", None)
    if kinds is None:
        return tuple(default(i) for i in range(layers))
    if not isinstance(kinds, list) or len(kinds) != layers or not all(kind in known for kind in kinds):
        fields.fail("layer_types", f"must be a list of {layers} of {' and '.join(known)}")
    return tuple(kinds)


def by_kind(spec: ModelSpec, kinds: Sequence[str], changes: dict[str, dict[str, Any]]) -> ModelSpec:
    """The spec with fields of attention that differ by the kind of layer.

    Args:
        kinds: of each layer.
        changes: kind to fields of its attention.
    """
    made: dict[tuple[str, Block], Block] = {}
    for kind, block in zip(kinds, spec.blocks, strict=True):
        if (kind, block) not in made:
            mixer = replace(block.mixer, **changes[kind])  # type: ignore[type-var]
            made[kind, block] = replace(block, mixer=mixer)
    blocks = tuple(made[kind, block] for kind, block in zip(kinds, spec.blocks, strict=True))
    return replace(spec, stack=replace(spec.stack, blocks=blocks))


def with_windows(
    spec: ModelSpec, kinds: Sequence[str], window: int | None, ropes: dict[str, Rope | None] | None = None
) -> ModelSpec:
    """The spec whose `sliding_attention` layers see `window` tokens; rotations by kind where they differ."""
    slides: dict[str, Any] = {"window": window or None}
    full: dict[str, Any] = {"window": None}
    if ropes is not None:
        slides["positions"], full["positions"] = ropes["sliding_attention"], ropes["full_attention"]
    return by_kind(spec, kinds, {"sliding_attention": slides, "full_attention": full})
