"""Baichuan 1 and 2: the Llama block with fused projections; RoPE at 7B, ALiBi at 13B; a normed head in 2.

Its code is not part of `transformers`; the config of the 13B forms names no `max_position_embeddings`.
"""

from __future__ import annotations

import numpy as np

from pentad.execution.formats.base import Floats
from pentad.execution.positions import Alibi
from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import MHA_KEYS
from pentad.model.families.places import Name, Names, Place, Values, fused_qkv
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_SMALL_LAYERS = 32
"""Of the 7B form, by which GGUF files tell their positions."""
_NAMES: dict[str, Name] = {**llama.CONFIG_NAMES, **fused_qkv("model.layers.{i}.self_attn.W_pack")}  # type: ignore[dict-item]


def _unit_rows(head: Floats) -> Floats:
    """Each row of length 1: Baichuan 2 does so whenever it computes logits."""
    found: Floats = head / np.maximum(np.linalg.norm(head, axis=-1, keepdims=True), np.float32(1e-12))
    return found


def config_names(_: ModelSpec, fields: Fields) -> Names:
    """The second generation, which its loss's weight tells, norms the rows of its head."""
    if not fields.has("z_loss_weight"):
        return _NAMES
    return {**_NAMES, "head": Place(name="lm_head", steps=(Values(change=_unit_rows, back=lambda w: w),))}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` baichuan."""
    if fields.has("max_position_embeddings"):
        return llama.describe_config(fields, family="baichuan", keys=MHA_KEYS)
    context = fields.integer("model_max_length", 4096, low=1)
    return llama.describe_config(
        fields, family="baichuan", keys=MHA_KEYS, positions=Alibi(), context_length=context
    )


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `baichuan`."""
    spec = llama.describe_gguf(fields, container, family="baichuan", biases=frozenset())
    return spec if spec.layers == _SMALL_LAYERS else spec.with_attention(positions=Alibi())


FAMILY = Family(
    name="baichuan",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=config_names,
)
