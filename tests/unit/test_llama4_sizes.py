"""Llama 4's published sizes follow from its configs."""

from __future__ import annotations

from typing import Any

import pytest

from evidence.plugin import Measure
from pentad.model.families import family_of
from pentad.model.families.base import spec_of_config
from pentad.model.files.fields import Fields

SCOUT: dict[str, Any] = {
    "model_type": "llama4_text",
    "vocab_size": 202_048,
    "hidden_size": 5120,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16_384,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 1_048_576,
    "num_local_experts": 16,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1,
}
MAVERICK = SCOUT | {"num_local_experts": 128, "interleave_moe_layer_step": 2, "use_qk_norm": False}


@pytest.mark.row("ml-llama4", "effect", claims=(2,))
@pytest.mark.parametrize(("name", "values", "billions"), [("Scout", SCOUT, 109), ("Maverick", MAVERICK, 400)])
def test_scout_and_maverick_have_their_published_sizes(
    name: str, values: dict[str, Any], billions: float, measured: Measure
) -> None:
    fields = Fields(source=name, values=values)
    spec = spec_of_config(family_of("llama4_text", name), fields)
    for what, found, told in (("all", spec.parameters, billions), ("active", spec.active_parameters, 17.0)):
        off = abs(found / told / 1e9 - 1)
        measured(f"{name}, {what} parameters off what is published", off, at_most=0.02)
