"""RunContext from the options of a request, and the records on the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from pentad.application.gateway.schemas.common import (
    BudgetLimits,
    CompletionDetails,
    FollowUp,
    PentadOptions,
    PromptDetails,
    Slo,
    WireEnergy,
    WireUsage,
)
from pentad.types import Budget, Energy, Hints, Objective, RunContext, Span, Usage

_SILENT = PentadOptions()
_NOTHING = RunContext()


def run_context(options: PentadOptions) -> RunContext:
    """The context that travels down through all layers."""
    if options == _SILENT:
        return _NOTHING
    slo, limits, follow = options.slo or Slo(), options.budget or BudgetLimits(), options.hints or FollowUp()
    return RunContext(
        run_id=options.run_id,
        step=options.step or 0,
        graph={name: tuple(after) for name, after in (options.graph or {}).items()},
        node=options.node,
        parent=options.parent,
        hints=Hints(**as_dict(follow)),
        objective=Objective(
            ttft_s=slo.ttft_s,
            inter_token_s=slo.inter_token_s,
            deadline_s=slo.deadline_s,
            min_quality=options.quality,
            max_cost=slo.max_cost,
            max_energy_j=slo.max_energy_j,
            prefer=slo.prefer,
        ),
        budget=Budget(
            tokens=limits.tokens, cost=limits.cost, wall_s=limits.wall_s, tool_calls=limits.tool_calls
        ),
        data_label=options.data_label,
        task=options.task,
    )


def wire_usage(usage: Usage) -> WireUsage:
    """Usage as OpenAI's clients read it."""
    return WireUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=PromptDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionDetails(reasoning_tokens=usage.reasoning_tokens),
        notices=notices(usage),
        energy=wire_energy(usage),
    )


def wire_energy(usage: Usage) -> WireEnergy | UnsetType:
    """Energy for the usage of any dialect; absent where nobody asked or nobody meters it."""
    return energy_on_wire(usage.energy, usage.completion_tokens)


def energy_on_wire(energy: Energy | None, tokens: int) -> WireEnergy | UnsetType:
    """Energy and what that is per generated token; absent where it is not known."""
    if energy is None:
        return UNSET
    return WireEnergy(
        joules=energy.joules,
        joules_per_token=energy.per_token(tokens),
        source=energy.source,
        basis=energy.basis,
    )


def notices(usage: Usage) -> list[str] | UnsetType:
    """What was done otherwise than asked, for the usage of any dialect; absent where nothing was."""
    return [one.notice for one in usage.decisions if one.notice is not None] or UNSET


def explanation(usage: Usage, own: tuple[Span, ...], request_id: str) -> dict[str, Any]:
    """The `pentad` object of an answer: where the time went and which choices were made.

    Spans carry seconds since the request arrived at the gateway, whose first span starts at 0.
    """
    spans = (*own, *usage.spans)
    origin = min((span.start_s for span in spans), default=0.0)
    layers: dict[str, float] = {}
    for span in spans:
        layers[span.layer] = layers.get(span.layer, 0.0) + span.end_s - span.start_s
    return {
        "request_id": request_id,
        "cost": usage.cost,
        "layers_s": layers,
        "spans": [
            {
                "layer": span.layer,
                "name": span.name,
                "start_s": span.start_s - origin,
                "end_s": span.end_s - origin,
            }
            for span in spans
        ],
        "decisions": [
            {
                "layer": decision.layer,
                "policy": decision.policy,
                "subject": decision.subject,
                "chosen": decision.chosen,
                "candidates": [list(candidate) for candidate in decision.candidates],
                "constraint": decision.constraint,
                **({"parts": [list(part) for part in decision.parts]} if decision.parts else {}),
            }
            for decision in usage.decisions
        ],
    }


def as_dict(value: Any) -> Mapping[str, Any]:
    """A Struct as plain JSON values."""
    built: dict[str, Any] = msgspec.to_builtins(value)
    return built
