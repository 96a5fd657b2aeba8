"""BERT encoders (MiniLM and other sentence embedders): post-LayerNorm, learned positions, GELU."""

from __future__ import annotations

from pentad.execution.spec import Learned, ModelSpec, Norm
from pentad.execution.uniform import uniform_spec
from pentad.model.families.base import Family
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container

GGUF_NAMES = {
    "embed": "token_embd",
    "positions": "position_embd",
    "token_types": "token_types",
    "embed_norm": "token_embd_norm",
    "layers.{i}.q": "blk.{i}.attn_q",
    "layers.{i}.k": "blk.{i}.attn_k",
    "layers.{i}.v": "blk.{i}.attn_v",
    "layers.{i}.o": "blk.{i}.attn_output",
    "layers.{i}.attn_norm": "blk.{i}.attn_output_norm",
    "layers.{i}.up": "blk.{i}.ffn_up",
    "layers.{i}.down": "blk.{i}.ffn_down",
    "layers.{i}.ffn_norm": "blk.{i}.layer_output_norm",
}
CONFIG_NAMES = {
    "embed": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "embed_norm": "embeddings.LayerNorm",
    "layers.{i}.q": "encoder.layer.{i}.attention.self.query",
    "layers.{i}.k": "encoder.layer.{i}.attention.self.key",
    "layers.{i}.v": "encoder.layer.{i}.attention.self.value",
    "layers.{i}.o": "encoder.layer.{i}.attention.output.dense",
    "layers.{i}.attn_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "layers.{i}.up": "encoder.layer.{i}.intermediate.dense",
    "layers.{i}.down": "encoder.layer.{i}.output.dense",
    "layers.{i}.ffn_norm": "encoder.layer.{i}.output.LayerNorm",
}


def _spec(
    name: str, vocab: int, positions: int, types: int, eps: float, sizes: tuple[int, int, int, int]
) -> ModelSpec:
    layers, width, heads, ffn_width = sizes
    return uniform_spec(
        name=name,
        family="bert",
        vocab_size=vocab,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        ffn_width=ffn_width,
        context_length=positions,
        positions=Learned(max_positions=positions),
        norm=Norm(kind="layer", eps=eps),
        placement="post",
        embedding_norm=True,
        activation="gelu",
        gated=False,
        biases=frozenset({"qkv", "out", "ffn"}),
        causal=False,
        token_types=types,
    )


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `bert`."""
    if (pooling := fields.integer("pooling_type", 1)) != 1:
        fields.fail("pooling_type", f"is {pooling}; mean pooling (1) is supported")
    shapes = {}
    for name in ("token_embd.weight", "position_embd.weight", "token_types.weight"):
        info = container.tensors.get(name)
        if info is None:
            fields.fail(name, "is not among the tensors")
        shapes[name] = info.shape
    return _spec(
        fields.source,
        shapes["token_embd.weight"][0],
        shapes["position_embd.weight"][0],
        shapes["token_types.weight"][0],
        fields.number("attention.layer_norm_epsilon", 1e-12),
        (
            fields.integer("block_count", low=1, high=MAX_LAYERS),
            fields.integer("embedding_length", low=1),
            fields.integer("attention.head_count", low=1),
            fields.integer("feed_forward_length", low=1),
        ),
    )


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` bert."""
    if (kind := fields.text("position_embedding_type", "absolute")) != "absolute":
        fields.fail("position_embedding_type", f"is {kind!r}; absolute is supported")
    if (activation := fields.text("hidden_act", "gelu")) != "gelu":
        fields.fail("hidden_act", f"is {activation!r}; gelu is supported")
    return _spec(
        fields.source,
        fields.integer("vocab_size", low=1),
        fields.integer("max_position_embeddings", low=1, high=MAX_CONTEXT),
        fields.integer("type_vocab_size", 2, low=1),
        fields.number("layer_norm_eps", 1e-12),
        (
            fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS),
            fields.integer("hidden_size", low=1),
            fields.integer("num_attention_heads", low=1),
            fields.integer("intermediate_size", low=1),
        ),
    )


FAMILY = Family(
    name="bert",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    optional_prefixes=("bert.",),
)
