"""Tiny decoders, one for every feature of a dense block and one for the blocks of real families."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from native_support import tiny_spec
from pentad.execution.layers import Block, FeedForward
from pentad.execution.mixers import LatentAttention, Norm
from pentad.execution.positions import Alibi, DualChunks, Growth, Learned, Rope, RopeScaling
from pentad.execution.spec import Head, ModelSpec

LAYER = Norm(kind="layer")
BARE = Norm(kind="layer", bias=False)
ALL = frozenset({"qkv", "out", "ffn"})


def blocks(spec: ModelSpec, **changes: Any) -> ModelSpec:
    """With other fields in every layer."""
    return spec.with_blocks(lambda block: dataclasses.replace(block, **changes))


def inner(spec: ModelSpec, **changes: Any) -> ModelSpec:
    """With other fields in every layer's feed-forward."""

    def changed(block: Block) -> Block:
        assert isinstance(block.feed_forward, FeedForward)
        return dataclasses.replace(block, feed_forward=dataclasses.replace(block.feed_forward, **changes))

    return spec.with_blocks(changed)


def stack(spec: ModelSpec, **changes: Any) -> ModelSpec:
    """With other fields of the stack."""
    return dataclasses.replace(spec, stack=dataclasses.replace(spec.stack, **changes))


def headed(spec: ModelSpec, **changes: Any) -> ModelSpec:
    """With other fields of the head."""
    return dataclasses.replace(spec, head=Head(tied=False, **changes))


def embedded(spec: ModelSpec, scale: float) -> ModelSpec:
    """With another scale of the embeddings."""
    return dataclasses.replace(spec, embedding_scale=scale)


def layer_by_layer(spec: ModelSpec, *changes: Callable[[ModelSpec], ModelSpec]) -> ModelSpec:
    """Layer i as in the i-th change of the spec."""
    changed = tuple(change(spec).blocks[i] for i, change in enumerate(changes))
    return stack(spec, blocks=changed)


def gpt2(**changes: Any) -> ModelSpec:
    """Learned positions, layer norms, biases everywhere, no gate."""
    settings = {"positions": Learned(max_positions=512), "norm": LAYER, "biases": ALL, "gated": False}
    return tiny_spec(**(settings | {"activation": "gelu_tanh"} | changes))


def neox() -> ModelSpec:
    """Parallel parts with a norm each, a quarter of a head turned."""
    spec = gpt2(positions=Rope(dim=16), activation="gelu")
    return blocks(spec, parallel=True)


NORMS = {
    "layer norms": tiny_spec(norm=LAYER),
    "layer norms without shift": tiny_spec(norm=BARE),
    "norms with an offset": tiny_spec(norm=Norm(offset=0.25)),
    "norms behind the sum": tiny_spec(placement="post"),
    "layer norms behind the sum": tiny_spec(placement="post", norm=LAYER, biases=ALL),
    "norms around parts": blocks(tiny_spec(), placement="both"),
    "layer norms around parts": blocks(tiny_spec(norm=LAYER, biases=ALL), placement="both"),
    "norms on what parts give": blocks(tiny_spec(), placement="output"),
    "no last norm": stack(tiny_spec(), final_norm=None),
    "norm of embeddings": stack(tiny_spec(), embedding_norm=Norm()),
    "layer norm of embeddings": tiny_spec(norm=LAYER, embedding_norm=True),
}
PARTS = {
    "biases everywhere": headed(tiny_spec(biases=ALL), bias=True),
    "biases without a gate": tiny_spec(biases=ALL, gated=False, activation="relu"),
    "queries and values have biases": tiny_spec(biases=frozenset({"qkv"})).with_attention(key_bias=False),
    "no gate, silu": tiny_spec(gated=False),
    "no gate, relu": tiny_spec(gated=False, activation="relu"),
    "no gate, gelu": tiny_spec(gated=False, activation="gelu"),
    "no gate, gelu_tanh": tiny_spec(gated=False, activation="gelu_tanh"),
    "gated gelu": tiny_spec(activation="gelu"),
    "gated gelu_tanh": tiny_spec(activation="gelu_tanh"),
    "gated relu": tiny_spec(activation="relu"),
    "parallel with one norm": tiny_spec(parallel_block=True),
    "parallel with two norms": blocks(tiny_spec(), parallel=True),
    "parallel with norms around parts": blocks(tiny_spec(), parallel=True, placement="both"),
    "parallel with norms behind": blocks(tiny_spec(), parallel=True, placement="post"),
    "scaled residuals": blocks(tiny_spec(), residual_scale=0.4),
    "scaled residuals around norms": blocks(tiny_spec(), residual_scale=0.4, placement="both"),
    "scaled embeddings": embedded(tiny_spec(), 16.0),
    "capped logits": headed(tiny_spec(), cap=1.5),
    "scaled and biased logits": headed(tiny_spec(), scale=0.5, bias=True),
    "feed-forwards of two widths": layer_by_layer(tiny_spec(), lambda s: s, lambda s: inner(s, width=256)),
}
POSITIONS = {
    "learned positions": tiny_spec(positions=Learned(max_positions=512)),
    "learned positions from the second row on": tiny_spec(positions=Learned(max_positions=512, offset=2)),
    "no positions": tiny_spec(positions=None),
}


def attending(**changes: Any) -> ModelSpec:
    """With other fields in every layer's attention."""
    return tiny_spec().with_attention(**changes)


def gemma(**changes: Any) -> ModelSpec:
    """Norms of scales less one around parts, a window in one layer of two, scaled scores and embeddings."""
    spec = tiny_spec(norm=Norm(offset=0.25), activation="gelu_tanh", window=24, window_layers=(0,))
    return embedded(blocks(spec, placement="both").with_attention(scale=0.1, **changes), 16.0)


SCORES = {
    "scaled scores": attending(scale=0.3),
    "capped scores": attending(score_cap=0.7),
    "sinks": attending(sinks=True),
    "ALiBi": attending(positions=Alibi()),
    "ALiBi of three heads, capped, with sinks": tiny_spec(
        heads=3, kv_heads=1, positions=Alibi()
    ).with_attention(sinks=True, score_cap=0.9, window=30),
    "norms over all heads": attending(qk_norm="all"),
    "norms over all heads, interleaved pairs, biases": attending(
        qk_norm="all", positions=Rope(dim=64, pairing="interleaved"), qkv_bias=True
    ),
    "norms of each head": attending(qk_norm="each"),
    "layer norms of each head": attending(qk_norm="each", qk_norm_kind="layer"),
    "layer norms of heads, biases": attending(qk_norm="head", qk_norm_kind="layer", qkv_bias=True),
    "norms of heads behind the rotation": attending(
        qk_norm="head", qk_norm_last=True, positions=Rope(dim=32, pairing="interleaved")
    ),
    "cut queries, keys and values": attending(qkv_clip=0.4),
    "cut behind biases, in front of norms over all heads": attending(
        qkv_clip=0.6, qkv_bias=True, qk_norm="all"
    ),
    "chunks": attending(chunk=24),
    "queries that grow in steps": attending(growth=Growth(weight=0.5, period=6, offset=1)),
    "queries that grow smoothly": attending(growth=Growth(weight=0.5, period=20, steps=False)),
    "gated attention": attending(output_gate=True),
    "gated attention beside its feed-forward": blocks(attending(output_gate=True), parallel=True),
    "clamped feed-forward": inner(tiny_spec(biases=ALL), clamped=True),
}
ROTATIONS = {
    "another base in the second layer": layer_by_layer(
        tiny_spec(), lambda s: s, lambda s: s.with_attention(positions=Rope(dim=64, base=1e6))
    ),
    "another size and pairing in the second layer": layer_by_layer(
        tiny_spec(biases=frozenset({"qkv"})),
        lambda s: s,
        lambda s: s.with_attention(positions=Rope(dim=32, pairing="interleaved")),
    ),
    "no rotation in the second layer": layer_by_layer(
        tiny_spec(biases=frozenset({"qkv"})), lambda s: s, lambda s: s.with_attention(positions=None)
    ),
    "YaRN with its magnitude": tiny_spec(
        positions=Rope(
            dim=64, scaling=RopeScaling(kind="yarn", factor=4, original_context=64, magnitude=1.14)
        )
    ),
}
YARN = RopeScaling(kind="yarn", factor=4, original_context=64, magnitude=1.14)
CHUNKS = DualChunks(length=14, reach=20)
DUAL = {
    "dual chunks": tiny_spec(positions=Rope(dim=64, dual=CHUNKS)),
    "dual chunks, a part of heads": tiny_spec(positions=Rope(dim=32, pairing="interleaved", dual=CHUNKS)),
    "dual chunks, biases, YaRN with its magnitude": tiny_spec(
        positions=Rope(dim=64, dual=CHUNKS, scaling=YARN), biases=frozenset({"qkv"})
    ),
    "dual chunks, sinks, capped, one layer of two": layer_by_layer(
        attending(sinks=True, score_cap=2.0),
        lambda s: s,
        lambda s: s.with_attention(positions=Rope(dim=64, dual=CHUNKS)),
    ),
}


def latent(**changes: Any) -> ModelSpec:
    """Latent attention in every layer."""
    sizes: dict[str, Any] = {"heads": 4, "kv_rank": 64, "nope_dim": 32, "value_dim": 32, "q_rank": 96}
    sizes |= {"rope": Rope(dim=32, pairing="interleaved")} | changes
    return blocks(tiny_spec(), mixer=LatentAttention(**sizes))


LATENT = {
    "latent attention": latent(),
    "latent attention of hidden states, halves": latent(q_rank=None, rope=Rope(dim=32)),
    "latent attention of many heads, YaRN with its magnitude": latent(
        heads=20, kv_rank=256, value_dim=64, scale=0.2, rope=Rope(dim=64, pairing="interleaved", scaling=YARN)
    ),
}
FAMILIES = {
    "GPT-2": gpt2(),
    "GPT-NeoX": neox(),
    "OPT": gpt2(positions=Learned(max_positions=512, offset=2), activation="relu"),
    "Falcon": tiny_spec(norm=LAYER, kv_heads=1, gated=False, activation="gelu", parallel_block=True),
    "Phi": headed(gpt2(positions=Rope(dim=32), parallel_block=True), bias=True),
    "StarCoder 2": gpt2(positions=Rope(dim=64), window=24),
    "StableLM": tiny_spec(norm=LAYER, positions=Rope(dim=16), biases=frozenset({"qkv"})),
    "Gemma 2": headed(gemma(score_cap=5.0), cap=3.0),
    "Gemma 3": layer_by_layer(
        gemma(qk_norm="head"), lambda s: s, lambda s: s.with_attention(positions=Rope(dim=64, base=1e6))
    ),
    "BLOOM": tiny_spec(
        positions=Alibi(), norm=LAYER, embedding_norm=True, activation="gelu_tanh", gated=False, biases=ALL
    ),
    "MPT": tiny_spec(positions=Alibi(), norm=BARE, activation="gelu", gated=False),
    "OLMo 2": blocks(attending(qk_norm="all"), placement="output"),
    "gpt-oss, one expert": inner(
        tiny_spec(biases=ALL, window=24, window_layers=(0,)).with_attention(sinks=True), clamped=True
    ),
    "Granite": headed(embedded(blocks(attending(scale=0.2), residual_scale=0.4), 6.0), scale=0.5),
    "Cohere": headed(tiny_spec(norm=BARE, parallel_block=True), scale=0.0625 * 8),
    "Cohere R+": headed(
        tiny_spec(norm=BARE, parallel_block=True).with_attention(qk_norm="each", qk_norm_kind="layer"),
        scale=0.0625 * 8,
    ),
    "Llama 4, dense": layer_by_layer(
        attending(chunk=24, qk_norm="head", qk_norm_last=True),
        lambda s: s,
        lambda s: s.with_attention(
            chunk=None, positions=None, qk_norm=None, growth=Growth(weight=0.3, period=8, offset=1)
        ),
    ),
}
SPECS: dict[str, ModelSpec] = {
    **NORMS,
    **PARTS,
    **SCORES,
    **POSITIONS,
    **ROTATIONS,
    **DUAL,
    **LATENT,
    **FAMILIES,
}
