"""BART, mBART, Marian and M2M-100 (NLLB): encoder and decoder of LayerNorm blocks with biases everywhere.

They differ in where norms stand and in how positions enter: learned from row 2 on (BART, mBART), or sines
and cosines, one half behind the other (Marian from 0 on, M2M-100 from row 2 on and by other frequencies).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from pentad.execution.formats.base import Floats
from pentad.execution.layers import FeedForward
from pentad.execution.mixers import Attention, Norm, Shape
from pentad.execution.spec import Block, Head, Learned, ModelSpec, Stack
from pentad.model.families.base import Family
from pentad.model.families.describe import activation, needs
from pentad.model.families.places import Computed, FirstOf, Name, Names, Place, Reshaped
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How one of the families is built."""

    placement: Literal["pre", "post"]
    embedding_norm: bool
    """Whether what enters a stack is normed; what leaves it is where norms stand in front."""
    offset: int
    """Rows of the table of positions in front of the first token's."""
    activation: str = "gelu"
    """Where the config names none."""
    logits_bias: bool = True
    sinusoids: Callable[[Shape], Floats] | None = None
    """The table of positions; None: a learned one."""


def marian_sinusoids(shape: Shape) -> Floats:
    """Sines, then cosines, of frequencies that fall from 1 to about 1/10000."""
    positions, width = shape
    angles = np.arange(positions)[:, None] / 10000 ** (2 * np.arange((width + 1) // 2) / width)
    return np.concatenate((np.sin(angles), np.cos(angles[:, : width // 2])), axis=1).astype(np.float32)


def m2m_sinusoids(shape: Shape) -> Floats:
    """The same with the last frequency at exactly 1/10000; nothing in the row of padding, the second."""
    positions, width = shape
    half = width // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10000) / (half - 1)))
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
    table = np.concatenate((np.sin(angles), np.cos(angles)), axis=1)
    table[1] = 0
    return np.pad(table, ((0, 0), (0, width % 2)))


FORMS: Final[Mapping[str, Form]] = {
    "bart": Form(placement="post", embedding_norm=True, offset=2),
    "mbart": Form(placement="pre", embedding_norm=True, offset=2),
    "marian": Form(placement="post", embedding_norm=False, offset=0, sinusoids=marian_sinusoids),
    "m2m_100": Form(
        placement="pre",
        embedding_norm=False,
        offset=2,
        activation="relu",
        logits_bias=False,
        sinusoids=m2m_sinusoids,
    ),
}
"""By `model_type`."""
_NORM: Final = Norm(kind="layer", eps=1e-5)


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` of one of these families."""
    family = fields.text("model_type")
    form = FORMS.get(family)
    if form is None:
        fields.fail("model_type", f"is {family!r}, none of {', '.join(FORMS)}")
    needs(fields, "share_encoder_decoder_embeddings", True)
    vocab_size = fields.integer("vocab_size", low=1)
    needs(fields, "decoder_vocab_size", vocab_size)
    width = fields.integer("d_model", low=1)
    context = fields.integer("max_position_embeddings", 1024, low=1, high=MAX_CONTEXT)
    positions = Learned(max_positions=context, offset=form.offset)
    return ModelSpec(
        name=fields.source,
        family=family,
        vocab_size=vocab_size,
        context_length=context,
        stack=_stack(fields, form, "decoder", positions),
        encoder=_stack(fields, form, "encoder", positions),
        head=Head(tied=fields.flag("tie_word_embeddings", True), bias=form.logits_bias),
        embedding_scale=math.sqrt(width) if fields.flag("scale_embedding", family == "m2m_100") else 1.0,
    )


def _stack(fields: Fields, form: Form, part: Literal["encoder", "decoder"], positions: Learned) -> Stack:
    width = fields.integer("d_model", low=1)
    heads = fields.integer(f"{part}_attention_heads", low=1)
    if width % heads:
        fields.fail(f"{part}_attention_heads", f"is {heads}, which does not divide the width {width}")
    attention = Attention(heads=heads, kv_heads=heads, head_dim=width // heads, qkv_bias=True, out_bias=True)
    block = Block(
        mixer=attention,
        cross=attention if part == "decoder" else None,
        feed_forward=FeedForward(
            width=fields.integer(f"{part}_ffn_dim", low=1),
            activation=activation(fields, "activation_function", form.activation),
            gated=False,
            bias=True,
        ),
        norm=_NORM,
        placement=form.placement,
    )
    return Stack(
        width=width,
        blocks=(block,) * fields.integer(f"{part}_layers", low=1, high=MAX_LAYERS),
        positions=positions,
        embedding_norm=_NORM if form.embedding_norm else None,
        final_norm=_NORM if form.placement == "pre" else None,
        causal=part == "decoder",
    )


def _stack_names(prefix: str, part: str) -> Iterator[tuple[str, Name]]:
    stack, layer = f"model.{part}", f"model.{part}.layers.{{i}}"
    modules = [("attn", "self_attn", "")]
    if part == "decoder":
        modules.append(("cross", "encoder_attn", "cross."))
    for name, module, inner in modules:
        yield f"{prefix}layers.{{i}}.{name}_norm", f"{layer}.{module}_layer_norm"
        for matrix, file in zip("qkvo", ("q_proj", "k_proj", "v_proj", "out_proj"), strict=True):
            yield f"{prefix}layers.{{i}}.{inner}{matrix}", f"{layer}.{module}.{file}"
    yield f"{prefix}layers.{{i}}.ffn_norm", f"{layer}.final_layer_norm"
    yield f"{prefix}layers.{{i}}.up", f"{layer}.fc1"
    yield f"{prefix}layers.{{i}}.down", f"{layer}.fc2"
    yield f"{prefix}positions", f"{stack}.embed_positions"
    yield f"{prefix}embed_norm", f"{stack}.layernorm_embedding"
    yield f"{prefix}final_norm", f"{stack}.layer_norm"


def config_names(spec: ModelSpec, _: Fields) -> Names:
    """Places in a folder."""
    embeddings = ("model.shared", "model.decoder.embed_tokens", "model.encoder.embed_tokens")
    names: dict[str, Name] = {
        "embed": FirstOf(places=embeddings),
        "head": FirstOf(places=("lm_head", *embeddings)),
        "head.bias": Place(
            name="final_logits_bias",
            suffix="",
            steps=(Reshaped(to=lambda site: (site.spec.vocab_size,)),),
            absent=0.0,
        ),
    }
    names |= dict(_stack_names("encoder.", "encoder")) | dict(_stack_names("", "decoder"))
    if (table := FORMS[spec.family].sinusoids) is not None:
        names |= dict.fromkeys(("positions", "encoder.positions"), Computed(values=table))
    return names


_HARMLESS = """
normalize_before normalize_embedding add_final_layer_norm static_position_embeddings extra_pos_embeddings
add_bias_logits encoder_layerdrop decoder_layerdrop num_hidden_layers hidden_size num_attention_heads
save_step
early_stopping no_repeat_ngram_size num_beams length_penalty min_length max_length bad_words_ids num_labels
force_bos_token_to_be_generated
"""
"""What the published code does not read either, and what beams and lengths of its answers were."""
FAMILY = Family(
    name="bart",
    describe_config=describe_config,
    config_names=config_names,
    harmless=frozenset(_HARMLESS.split()),
)
