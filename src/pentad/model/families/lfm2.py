"""LFM2 (dense): short convolutions between gates, and attention in some layers."""

from __future__ import annotations

from pentad.execution.layers import Block, FeedForward
from pentad.execution.mixers import Attention, Norm, ShortConvolution
from pentad.execution.positions import Rope
from pentad.execution.spec import Head, ModelSpec, Stack
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.places import Names, Place, Reshaped, Site
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container


def _kernel(site: Site) -> tuple[int, ...]:
    mixer = site.block.mixer
    assert isinstance(mixer, ShortConvolution)
    return mixer.channels, mixer.conv


def _attends(site: Site) -> bool:
    return isinstance(site.block.mixer, Attention)


GGUF_NAMES: Names = {
    **llama.GGUF_NAMES,
    "final_norm": "token_embd_norm",
    "layers.{i}.q_norm": "blk.{i}.attn_q_norm",
    "layers.{i}.k_norm": "blk.{i}.attn_k_norm",
    "layers.{i}.in": "blk.{i}.shortconv.in_proj",
    "layers.{i}.conv": Place(name="blk.{i}.shortconv.conv", steps=(Reshaped(to=_kernel),)),
    "layers.{i}.o": lambda site: "blk.{i}.attn_output" if _attends(site) else "blk.{i}.shortconv.out_proj",
}
CONFIG_NAMES: Names = {
    **llama.CONFIG_NAMES,
    "final_norm": "model.embedding_norm",
    "layers.{i}.attn_norm": "model.layers.{i}.operator_norm",
    "layers.{i}.ffn_norm": "model.layers.{i}.ffn_norm",
    "layers.{i}.gate": "model.layers.{i}.feed_forward.w1",
    "layers.{i}.up": "model.layers.{i}.feed_forward.w3",
    "layers.{i}.down": "model.layers.{i}.feed_forward.w2",
    "layers.{i}.q_norm": "model.layers.{i}.self_attn.q_layernorm",
    "layers.{i}.k_norm": "model.layers.{i}.self_attn.k_layernorm",
    "layers.{i}.in": "model.layers.{i}.conv.in_proj",
    "layers.{i}.conv": Place(name="model.layers.{i}.conv.conv", steps=(Reshaped(to=_kernel),)),
    "layers.{i}.conv.bias": "model.layers.{i}.conv.conv",
    "layers.{i}.o": lambda site: (
        "model.layers.{i}.self_attn.out_proj" if _attends(site) else "model.layers.{i}.conv.out_proj"
    ),
}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` lfm2."""
    width = fields.integer("hidden_size", low=1)
    heads = fields.integer("num_attention_heads", low=1)
    layers = fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    types = fields.value("layer_types", None)
    if types is None:
        attending = fields.value("full_attn_idxs", None)
        types = ["full_attention" if attending is None or i in attending else "conv" for i in range(layers)]
    if not isinstance(types, list) or len(types) != layers or not set(types) <= {"conv", "full_attention"}:
        fields.fail("layer_types", f"must name conv or full_attention for each of {layers} layers")
    rope = fields.table("rope_parameters")
    if (kind := rope.text("rope_type", "default")) != "default":
        fields.fail("rope_parameters", f"has the rope_type {kind!r}; default is supported")
    return _spec(
        fields.source,
        vocab=fields.integer("vocab_size", low=1),
        width=width,
        context=fields.integer("max_position_embeddings", low=1, high=MAX_CONTEXT),
        attention=Attention(
            heads=heads,
            kv_heads=fields.integer("num_key_value_heads", heads, low=1),
            head_dim=width // heads,
            positions=Rope(
                base=rope.number("rope_theta", fields.number("rope_theta", 1_000_000.0)), dim=width // heads
            ),
            qk_norm="head",
        ),
        convolution=ShortConvolution(
            channels=width,
            conv=fields.integer("conv_L_cache", 3, low=1),
            bias=fields.flag("conv_bias", False),
        ),
        attends=[kind == "full_attention" for kind in types],
        ffn=_ffn_width(fields),
        eps=fields.number("norm_eps", 1e-5),
        tied=fields.flag("tie_word_embeddings", fields.flag("tie_embedding", True)),
    )


def _ffn_width(fields: Fields) -> int:
    """What the config's width comes to once it is adjusted, as most of this family ask."""
    width = fields.integer("block_ff_dim", fields.integer("intermediate_size", 1, low=1), low=1)
    if not fields.flag("block_auto_adjust_ff_dim", True):
        return width
    adjusted = int(fields.number("block_ffn_dim_multiplier", 1.0) * int(2 * width / 3))
    multiple = fields.integer("block_multiple_of", 256, low=1)
    return -(-adjusted // multiple) * multiple


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `lfm2`: layers without KV heads are convolutions."""
    embed = container.tensors.get("token_embd.weight")
    if embed is None:
        fields.fail("token_embd.weight", "is not among the tensors")
    width, heads = fields.integer("embedding_length", low=1), fields.integer("attention.head_count", low=1)
    layers = fields.integer("block_count", low=1, high=MAX_LAYERS)
    counts = fields.values.get("attention.head_count_kv")
    if not isinstance(counts, list | tuple) or len(counts) != layers:
        fields.fail("attention.head_count_kv", f"must tell the heads of each of {layers} layers")
    return _spec(
        fields.source,
        vocab=embed.shape[0],
        width=width,
        context=fields.integer("context_length", low=1, high=MAX_CONTEXT),
        attention=Attention(
            heads=heads,
            kv_heads=max([1, *(int(count) for count in counts)]),
            head_dim=width // heads,
            positions=Rope(base=fields.number("rope.freq_base", 1_000_000.0), dim=width // heads),
            qk_norm="head",
        ),
        convolution=ShortConvolution(channels=width, conv=fields.integer("shortconv.l_cache", low=1)),
        attends=[bool(count) for count in counts],
        ffn=fields.integer("feed_forward_length", low=1),
        eps=fields.number("attention.layer_norm_rms_epsilon", 1e-5),
        tied="output.weight" not in container.tensors,
    )


def _spec(
    source: str,
    *,
    vocab: int,
    width: int,
    context: int,
    attention: Attention,
    convolution: ShortConvolution,
    attends: list[bool],
    ffn: int,
    eps: float,
    tied: bool,
) -> ModelSpec:
    norm, inner = Norm(eps=eps), FeedForward(width=ffn)
    blocks = tuple(
        Block(mixer=attention if attend else convolution, feed_forward=inner, norm=norm) for attend in attends
    )
    return ModelSpec(
        name=source,
        family="lfm2",
        vocab_size=vocab,
        context_length=context,
        stack=Stack(width=width, blocks=blocks, final_norm=norm),
        head=Head(tied=tied),
    )


_HARMLESS = """
full_attn_idxs
block_dim block_ff_dim block_mlp_init_scale block_out_init_scale block_use_swiglu block_use_xavier_init
conv_dim conv_dim_out conv_use_xavier_init block_norm_eps use_pos_enc num_heads
"""
FAMILY = Family(
    name="lfm2",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=frozenset(_HARMLESS.split()),
)
