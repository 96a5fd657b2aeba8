"""What mixtures of experts share, however their family spells the rest: records and tensor names."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Final, Literal

from pentad.execution.layers import Experts, FeedForward
from pentad.execution.spec import ModelSpec
from pentad.model.families.places import Constant, Name, Names, Place, Reshaped, Site
from pentad.model.files.fields import Fields

MAX_EXPERTS: Final = 1 << 14
"""Far above any model; a larger count is an attempt to make us build its tables."""

GGUF_NAMES: Final[Names] = {
    "layers.{i}.router": "blk.{i}.ffn_gate_inp",
    "layers.{i}.experts.gate": "blk.{i}.ffn_gate_exps",
    "layers.{i}.experts.up": "blk.{i}.ffn_up_exps",
    "layers.{i}.experts.down": "blk.{i}.ffn_down_exps",
    "layers.{i}.shared_gate": Place(
        name="blk.{i}.ffn_gate_inp_shexp", steps=(Reshaped(to=lambda site: (1, site.spec.width)),)
    ),
    "layers.{i}.shared.gate": "blk.{i}.ffn_gate_shexp",
    "layers.{i}.shared.up": "blk.{i}.ffn_up_shexp",
    "layers.{i}.shared.down": "blk.{i}.ffn_down_shexp",
}
UNIT: Final = Constant(value=1.0)
"""Of norms without a scale."""
CHOICE_BIAS: Final[Names] = {"layers.{i}.router.bias": "blk.{i}.exp_probs_b"}
"""In addition, where a bias bears on the choice alone."""

_GATING: Final[Mapping[int, Literal["softmax", "sigmoid", "softmax_chosen"]]] = {
    1: "softmax",
    2: "sigmoid",
    3: "softmax_chosen",
}
"""`expert_gating_func` of GGUF files."""


def config_names(prefix: str, gate: str, up: str, down: str, router: str = "gate") -> dict[str, Name]:
    """Names of a folder where each expert has matrices of its own under `prefix`.experts."""

    def each(name: str) -> Place:
        return Place(name=f"{prefix}.experts.{{e}}.{name}", members=expert_count)

    return {
        "layers.{i}.router": f"{prefix}.{router}",
        "layers.{i}.experts.gate": each(gate),
        "layers.{i}.experts.up": each(up),
        "layers.{i}.experts.down": each(down),
    }


def expert_count(site: Site) -> int:
    """Experts of the layer."""
    routed = site.block.feed_forward
    assert isinstance(routed, Experts), "only layers with experts have stacks of them"
    return routed.count


def expert_width(site: Site) -> int:
    """Inner columns of an expert of the layer."""
    routed = site.block.feed_forward
    assert isinstance(routed, Experts), "only layers with experts have a width of them"
    return routed.expert.width


def shared_names(prefix: str) -> dict[str, Name]:
    """Names of the experts that every token goes through, their matrices under `prefix`."""
    return {f"layers.{{i}}.shared.{name}": f"{prefix}.{name}_proj" for name in ("gate", "up", "down")}


def gguf_experts(
    fields: Fields,
    *,
    scores: Literal["softmax", "sigmoid", "softmax_chosen"] = "softmax",
    normalised: bool = True,
    router_bias: Literal["scores", "choice"] | None = None,
) -> Experts:
    """The experts that GGUF metadata tell; the arguments stand for what a file leaves to its architecture."""
    width = fields.integer("expert_feed_forward_length", fields.integer("feed_forward_length"), low=1)
    gating = fields.integer("expert_gating_func", 0)
    if gating not in (0, *_GATING):
        fields.fail("expert_gating_func", f"is {gating}; {', '.join(map(str, _GATING))} are known")
    shared = fields.integer("expert_shared_feed_forward_length", 0) or (
        width * fields.integer("expert_shared_count", 0)
    )
    groups = max(1, fields.integer("expert_group_count", 1))
    return Experts(
        count=fields.integer("expert_count", low=1, high=MAX_EXPERTS),
        per_token=fields.integer("expert_used_count", low=1),
        expert=FeedForward(width=width),
        shared=FeedForward(width=shared) if shared else None,
        scores=_GATING.get(gating, scores),
        normalised=fields.flag("expert_weights_norm", normalised),
        router_bias=router_bias,
        weight_scale=fields.number("expert_weights_scale", 1.0) or 1.0,
        groups=groups,
        chosen_groups=max(1, fields.integer("expert_group_used_count", groups)),
    )


def with_experts(spec: ModelSpec, experts: Experts, layers: Collection[int] | None = None) -> ModelSpec:
    """The same model with experts in these layers; None: in all."""
    blocks = tuple(
        dataclasses.replace(block, feed_forward=experts) if layers is None or i in layers else block
        for i, block in enumerate(spec.blocks)
    )
    return dataclasses.replace(spec, stack=dataclasses.replace(spec.stack, blocks=blocks))
