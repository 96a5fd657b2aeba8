"""InternLM 2 and 2.5: the Llama block, its queries, keys and values fused per key head.

Its code is not part of `transformers`. GGUF files of this architecture have the rows taken apart, with
rotary pairs as neighbours. InternLM 1 and 3 are laid out like Llama.
"""

from __future__ import annotations

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import needs
from pentad.model.families.places import Names, headwise_qkv
from pentad.model.files.fields import Fields

CONFIG_NAMES: Names = {
    "embed": "model.tok_embeddings",
    "final_norm": "model.norm",
    "head": "output",
    "layers.{i}.attn_norm": "model.layers.{i}.attention_norm",
    **headwise_qkv("model.layers.{i}.attention.wqkv"),
    "layers.{i}.o": "model.layers.{i}.attention.wo",
    "layers.{i}.ffn_norm": "model.layers.{i}.ffn_norm",
    "layers.{i}.gate": "model.layers.{i}.feed_forward.w1",
    "layers.{i}.up": "model.layers.{i}.feed_forward.w3",
    "layers.{i}.down": "model.layers.{i}.feed_forward.w2",
}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` internlm2."""
    needs(fields, "bias", False)
    return llama.describe_config(fields, family="internlm2")


FAMILY = Family(
    name="internlm2",
    describe_gguf=llama.describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=CONFIG_NAMES,
)
