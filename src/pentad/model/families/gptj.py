"""GPT-J: parallel parts that share a norm, neighbouring pairs turned, a head with a bias."""

from __future__ import annotations

import dataclasses

from pentad.execution.spec import Head, ModelSpec, Norm, Rope
from pentad.model.families.base import Family
from pentad.model.families.describe import GPT2_KEYS, activation, config_decoder
from pentad.model.families.places import Names
from pentad.model.files.fields import Fields

CONFIG_NAMES: Names = {
    "embed": "transformer.wte",
    "final_norm": "transformer.ln_f",
    "head": "lm_head",
    "layers.{i}.attn_norm": "transformer.h.{i}.ln_1",
    "layers.{i}.q": "transformer.h.{i}.attn.q_proj",
    "layers.{i}.k": "transformer.h.{i}.attn.k_proj",
    "layers.{i}.v": "transformer.h.{i}.attn.v_proj",
    "layers.{i}.o": "transformer.h.{i}.attn.out_proj",
    "layers.{i}.up": "transformer.h.{i}.mlp.fc_in",
    "layers.{i}.down": "transformer.h.{i}.mlp.fc_out",
}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` gptj."""
    spec = config_decoder(
        fields,
        "gptj",
        keys=GPT2_KEYS,
        positions=lambda dim: Rope(dim=fields.integer("rotary_dim", dim, low=2), pairing="interleaved"),
        norm=Norm(kind="layer", eps=fields.number("layer_norm_epsilon", 1e-5)),
        activation=activation(fields, "activation_function", "gelu_new"),
        gated=False,
        biases=frozenset({"ffn"}),
        parallel_block=True,
    )
    return dataclasses.replace(spec, head=Head(tied=fields.flag("tie_word_embeddings", False), bias=True))


FAMILY = Family(
    name="gptj",
    describe_config=describe_config,
    config_names=CONFIG_NAMES,
    harmless=frozenset({"rotary", "scale_attn_weights", "tokenizer"}),
)
