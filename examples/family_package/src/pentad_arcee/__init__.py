"""A model family in a package of its own: what of Arcee differs from Llama, named by an entry point."""

from __future__ import annotations

from pentad.execution.spec import ModelSpec
from pentad.model.families import llama
from pentad.model.families.base import Family
from pentad.model.families.describe import activation
from pentad.model.files.fields import Fields


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` arcee: no gate, a squared ReLU by default."""
    return llama.describe_config(
        fields, family="arcee", activation=activation(fields, default="relu2"), gated=False
    )


FAMILY = Family(
    name="arcee",
    describe_config=describe_config,
    config_names=llama.CONFIG_NAMES,
    harmless=frozenset(),
)
