"""Specs whose layers are alike but for their windows, from one set of sizes, as most configs give them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pentad.execution.layers import Activation, Block, FeedForward
from pentad.execution.mixers import Attention, Norm
from pentad.execution.positions import Alibi, Learned, RelativeBuckets, Rope
from pentad.execution.spec import Head, ModelSpec, Stack

Biases = frozenset[Literal["qkv", "out", "ffn"]]


def uniform_spec(
    *,
    name: str,
    family: str,
    vocab_size: int,
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    ffn_width: int,
    context_length: int,
    positions: Rope | Alibi | Learned | None,
    relative: RelativeBuckets | None = None,
    norm: Norm | None = None,
    placement: Literal["pre", "post", "both", "output"] = "pre",
    embedding_norm: bool = False,
    activation: Activation = "silu",
    gated: bool = True,
    biases: Biases = frozenset(),
    qk_norm: bool = False,
    parallel_block: bool = False,
    shared_norm: bool | None = None,
    tied_head: bool = True,
    causal: bool = True,
    token_types: int = 0,
    window: int | None = None,
    window_layers: Collection[int] | None = None,
) -> ModelSpec:
    """A decoder, or an encoder if not `causal`, of `layers` equal layers.

    Args:
        norm: of every layer; None: RMS.
        placement: all but `post` also norm the last hidden states.
        qk_norm: RMS norms of every query and key head.
        parallel_block: attention and feed-forward read the same hidden state and are added together.
        shared_norm: of such, whether one norm serves both; None: yes.
        window: tokens that a layer sees, the own one included; None: all.
        window_layers: which layers have the window; None: all.

    Raises:
        ValueError: an impossible geometry.
    """
    norm = norm or Norm()
    feed_forward = FeedForward(width=ffn_width, activation=activation, gated=gated, bias="ffn" in biases)

    def block(seen: int | None) -> Block:
        return Block(
            mixer=Attention(
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                window=seen,
                positions=None if isinstance(positions, Learned) else positions,
                qkv_bias="qkv" in biases,
                out_bias="out" in biases,
                qk_norm="head" if qk_norm else None,
            ),
            feed_forward=feed_forward,
            norm=norm,
            placement=placement,
            parallel=parallel_block,
            shared_norm=parallel_block if shared_norm is None else shared_norm,
        )

    wide, narrow = block(None), block(window)
    windowed = range(layers) if window_layers is None else window_layers
    return ModelSpec(
        name=name,
        family=family,
        vocab_size=vocab_size,
        context_length=context_length,
        stack=Stack(
            width=width,
            blocks=tuple(narrow if i in windowed else wide for i in range(layers)),
            positions=positions if isinstance(positions, Learned) else None,
            relative=relative,
            embedding_norm=norm if embedding_norm else None,
            final_norm=norm if placement != "post" else None,
            causal=causal,
        ),
        head=Head(tied=tied_head) if causal else None,
        token_types=token_types,
    )
