"""SmolLM 3: the Llama block; every fourth layer knows no positions."""

from __future__ import annotations

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama, qwen2
from pentad.model.families.base import Family
from pentad.model.families.describe import by_kind
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_PERIOD = 4


def _unturned(spec: ModelSpec, turned: list[bool]) -> ModelSpec:
    """Without rotations where `turned` is false."""
    kinds = ["turned" if turns else "still" for turns in turned]
    return by_kind(spec, kinds, {"turned": {}, "still": {"positions": None}})


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` smollm3."""
    biases = frozenset({"qkv", "out"}) if fields.flag("attention_bias", False) else frozenset()
    ffn = frozenset({"ffn"}) if fields.flag("mlp_bias", False) else frozenset()
    spec = qwen2.describe_config(
        fields, family="smollm3", biases=biases | ffn, tied_head=fields.flag("tie_word_embeddings", True)
    )
    period = fields.integer("no_rope_layer_interval", _PERIOD, low=1)
    given = fields.value("no_rope_layers", [int((i + 1) % period != 0) for i in range(spec.layers)])
    if not isinstance(given, list) or len(given) != spec.layers:
        fields.fail("no_rope_layers", f"must be a list of {spec.layers}")
    return _unturned(spec, [bool(turns) for turns in given])


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `smollm3`."""
    spec = llama.describe_gguf(fields, container, family="smollm3")
    return _unturned(spec, [(i + 1) % _PERIOD != 0 for i in range(spec.layers)])


FAMILY = Family(
    name="smollm3",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=llama.GGUF_NAMES,
    config_names=llama.CONFIG_NAMES,
)
