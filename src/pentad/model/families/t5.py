"""T5, mT5 and Flan-T5: RMS pre-norms, distances in buckets that a stack shares, scores without a scale.

Encoders alone (`T5EncoderModel`, GGUF's `t5encoder`) are models of one stack. The others have the decoder as
their main stack, which reads the encoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pentad.execution.layers import FeedForward
from pentad.execution.mixers import Attention, Norm
from pentad.execution.positions import RelativeBuckets
from pentad.execution.spec import Block, Head, ModelSpec, Stack
from pentad.model.families.base import Family
from pentad.model.families.encoders import ACTIVATIONS, gguf_rows
from pentad.model.families.places import FirstOf, Name, Names
from pentad.model.files.fields import MAX_LAYERS, Fields
from pentad.model.files.formats import Container

_TRAINED_TOKENS: Final = 512
"""What T5 was trained with; its files name no limit, since buckets have none."""


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` t5 or mt5."""
    layers = fields.integer("num_layers", low=1, high=MAX_LAYERS)
    gated, _, activation = fields.text("feed_forward_proj", "relu").rpartition("-")
    if gated not in ("", "gated") or activation not in ACTIVATIONS:
        fields.fail(
            "feed_forward_proj", f"is unknown; known: {', '.join(ACTIVATIONS)}, each also as gated-..."
        )
    # What is not scaled has a matrix of its own, whatever later releases have written beside it.
    scaled = fields.text("model_type") != "mt5" and fields.flag(
        "scale_decoder_outputs", fields.flag("tie_word_embeddings", True)
    )
    width = fields.integer("d_model", low=1)
    shape = Shape(
        width=width,
        attention=attention(fields.integer("num_heads", low=1), fields.integer("d_kv", low=1)),
        inner=FeedForward(
            width=fields.integer("d_ff", low=1),
            activation="gelu_tanh" if gated and activation == "gelu" else ACTIVATIONS[activation],
            gated=bool(gated),
        ),
        norm=Norm(eps=fields.number("layer_norm_epsilon", 1e-6)),
        buckets=RelativeBuckets(
            buckets=fields.integer("relative_attention_num_buckets", 32, low=4),
            max_distance=fields.integer("relative_attention_max_distance", 128, low=1),
        ),
    )
    named = fields.values.get("architectures")
    alone = isinstance(named, list) and any(str(one).endswith("EncoderModel") for one in named)
    decoder_layers = None if alone else fields.integer("num_decoder_layers", layers, low=1, high=MAX_LAYERS)
    return shape.spec(
        fields.source,
        fields.integer("vocab_size", low=1),
        layers,
        decoder_layers,
        # Models that tie their embeddings to the head scale what the head reads.
        head=Head(tied=scaled, scale=width**-0.5 if scaled else 1.0),
    )


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `t5` or `t5encoder`."""
    width, heads = fields.integer("embedding_length", low=1), fields.integer("attention.head_count", low=1)
    layers = fields.integer("block_count", low=1, high=MAX_LAYERS)
    gated = "enc.blk.0.ffn_gate.weight" in container.tensors
    shape = Shape(
        width=width,
        attention=attention(heads, fields.integer("attention.key_length", max(1, width // heads), low=1)),
        inner=FeedForward(
            width=fields.integer("feed_forward_length", low=1),
            activation="gelu_tanh" if gated else "relu",
            gated=gated,
        ),
        norm=Norm(eps=fields.number("attention.layer_norm_rms_epsilon", 1e-6)),
        buckets=RelativeBuckets(buckets=fields.integer("attention.relative_buckets_count", 32, low=4)),
    )
    alone = "dec.blk.0.attn_q.weight" not in container.tensors
    tied = "output.weight" not in container.tensors
    return shape.spec(
        fields.source,
        gguf_rows(fields, container, "token_embd.weight"),
        layers,
        None if alone else fields.integer("decoder_block_count", layers, low=1, high=MAX_LAYERS),
        head=Head(tied=tied, scale=width**-0.5 if tied else 1.0),
    )


def attention(heads: int, head_dim: int) -> Attention:
    """Scores are not scaled: training has taken that into the matrices."""
    return Attention(heads=heads, kv_heads=heads, head_dim=head_dim, scale=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What encoder and decoder have in common."""

    width: int
    attention: Attention
    inner: FeedForward
    norm: Norm
    buckets: RelativeBuckets

    def spec(
        self,
        source: str,
        vocab_size: int,
        layers: int,
        decoder_layers: int | None,
        *,
        head: Head,
        family: str = "t5",
    ) -> ModelSpec:
        """The encoder alone where `decoder_layers` is None, else the decoder beside it."""
        reading = Block(mixer=self.attention, feed_forward=self.inner, norm=self.norm)
        encoder = self._stack(reading, layers, causal=False)
        if decoder_layers is None:
            main = encoder
        else:
            main = self._stack(
                dataclasses.replace(reading, cross=self.attention), decoder_layers, causal=True
            )
        return ModelSpec(
            name=source,
            family=family,
            vocab_size=vocab_size,
            context_length=_TRAINED_TOKENS,
            stack=main,
            head=None if decoder_layers is None else head,
            encoder=None if decoder_layers is None else encoder,
        )

    def _stack(self, block: Block, layers: int, *, causal: bool) -> Stack:
        return Stack(
            width=self.width,
            blocks=(block,) * layers,
            relative=dataclasses.replace(self.buckets, bidirectional=not causal),
            final_norm=self.norm,
            causal=causal,
        )


def config_stack(prefix: str, stack: str, *, gated: bool, cross: bool) -> Iterator[tuple[str, Name]]:
    """Canonical names behind `prefix` and where `transformers` keeps them under `stack`."""
    layer, last = f"{stack}.block.{{i}}.layer", 2 if cross else 1
    parts = [
        ("attn", 0, "SelfAttention", ""),
        *([("cross", 1, "EncDecAttention", "cross.")] if cross else []),
    ]
    for name, at, module, inner in parts:
        yield f"{prefix}layers.{{i}}.{name}_norm", f"{layer}.{at}.layer_norm"
        for matrix in "qkvo":
            yield f"{prefix}layers.{{i}}.{inner}{matrix}", f"{layer}.{at}.{module}.{matrix}"
    yield f"{prefix}layers.{{i}}.ffn_norm", f"{layer}.{last}.layer_norm"
    for name, file in (("gate", "wi_0"), ("up", "wi_1" if gated else "wi"), ("down", "wo")):
        yield f"{prefix}layers.{{i}}.{name}", f"{layer}.{last}.DenseReluDense.{file}"
    yield f"{prefix}relative", f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
    yield f"{prefix}final_norm", f"{stack}.final_layer_norm"


def _gguf_stack(prefix: str, stack: str) -> Iterator[tuple[str, Name]]:
    for inner, file in (("", "attn"), ("cross.", "cross_attn")):
        yield f"{prefix}layers.{{i}}.{inner[:-1] or 'attn'}_norm", f"{stack}.blk.{{i}}.{file}_norm"
        for matrix in "qkvo":
            yield f"{prefix}layers.{{i}}.{inner}{matrix}", f"{stack}.blk.{{i}}.{file}_{matrix}"
    for name in ("ffn_norm", "gate", "up", "down"):
        yield f"{prefix}layers.{{i}}.{name}", f"{stack}.blk.{{i}}.ffn_{name.removeprefix('ffn_')}"
    yield f"{prefix}relative", f"{stack}.blk.0.attn_rel_b"
    yield f"{prefix}final_norm", f"{stack}.output_norm"


def config_names(spec: ModelSpec, _: Fields) -> Names:
    """Places in a folder."""
    inner = spec.blocks[0].feed_forward
    gated = inner is not None and inner.gated
    names: dict[str, Name] = {"embed": "shared", "head": FirstOf(places=("lm_head", "shared"))}
    if spec.encoder is None:
        return names | dict(config_stack("", "encoder", gated=gated, cross=False))
    encoder = dict(config_stack("encoder.", "encoder", gated=gated, cross=False))
    return names | encoder | dict(config_stack("", "decoder", gated=gated, cross=True))


def gguf_names(spec: ModelSpec, _: Fields) -> Names:
    """Places in a GGUF file."""
    names: dict[str, Name] = {"embed": "token_embd", "head": "output"}
    if spec.encoder is None:
        return names | dict(_gguf_stack("", "enc"))
    return names | dict(_gguf_stack("encoder.", "enc")) | dict(_gguf_stack("", "dec"))


_HARMLESS = """
initializer_factor dense_act_fn is_gated_act n_positions output_past scale_decoder_outputs
num_decoder_layers tie_word_embeddings
"""
FAMILY = Family(
    name="t5",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=gguf_names,
    config_names=config_names,
    harmless=frozenset(_HARMLESS.split()),
)
