"""Placement strategies side by side on one cluster: one row each, and a drawing of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pentad.application.cli.output import duration, print_json, print_table
from pentad.application.cli.planning import Ask, Described
from pentad.choice import Choice, build
from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.device import Cluster
from pentad.resource.placement.plan import Plan

COLUMNS = (
    "strategy",
    "replicas",
    "devices",
    "first token",
    "between tokens",
    "tokens/s",
    "cost a request",
    "J a request",
)
_DRAWN_REPLICAS = 12


def choices(text: str) -> list[str]:
    """The strategies in a list with commas; a comma in front of OPTION= belongs to the strategy before it."""
    found: list[str] = []
    for part in text.split(","):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        elif part.strip():
            found.append(part.strip())
    if not found:
        raise InvalidRequest(
            f"--compare is {text!r}", hint="give strategies with commas: --compare auto,uniform,single"
        )
    return found


def compared(ask: Ask, named: list[str], model: Described, cluster: Cluster) -> dict[str, Plan | Infeasible]:
    """The plan of each strategy, or why it has none."""
    planners = {name: build("placement", Choice.of(name)) for name in named}
    found: dict[str, Plan | Infeasible] = {}
    for name, planner in planners.items():
        try:
            found[name] = replace(ask, planner=planner).plan_on(model, cluster)
        except Infeasible as refusal:
            found[name] = refusal
    return found


def show(found: Mapping[str, Plan | Infeasible], *, as_json: bool) -> int:
    """Prints a row for each strategy; the exit status: 3 where none has a plan."""
    if as_json:
        print_json([_plain(name, outcome) for name, outcome in found.items()])
    else:
        print_table(COLUMNS, [_row(name, outcome) for name, outcome in found.items()], empty="no strategies")
    return 0 if any(isinstance(each, Plan) for each in found.values()) else Infeasible.exit_code


def _row(name: str, outcome: Plan | Infeasible) -> tuple[object, ...]:
    if isinstance(outcome, Infeasible):
        return (name, f"no plan: {outcome.message}", *("",) * (len(COLUMNS) - 2))
    cost, energy = outcome.cost_per_request, outcome.energy_j_per_request
    return (
        name,
        len(outcome.replicas),
        len({stage.device for stage in outcome.stages}),
        duration(outcome.ttft_s),
        duration(outcome.inter_token_s),
        f"{outcome.throughput_tokens_per_s:.1f}",
        "-" if cost is None else f"{cost:.3g}",
        "-" if energy is None else f"{energy:.3g}",
    )


def _plain(name: str, outcome: Plan | Infeasible) -> dict[str, Any]:
    if isinstance(outcome, Plan):
        return {"strategy": name, "plan": outcome.to_dict()}
    return {
        "strategy": name,
        "error": outcome.message,
        "hint": outcome.hint,
        "binding": outcome.param,
    }


def drawing(plan: Plan) -> Iterator[str]:
    """A line for each replica: its share of the requests, and its stages in order with their layers."""
    for replica in plan.replicas[:_DRAWN_REPLICAS]:
        stages = (
            f"[{' | '.join(stage.device for stage in group)}: "
            f"{group[0].first_layer}-{group[0].end_layer - 1}]"
            for group in replica.groups
        )
        phase = {"both": "", "prefill": " of prompts", "decode": " of answers"}[replica.role]
        yield f"{replica.weight:>4.0%}{phase} --> {' --> '.join(stages)}"
    if (rest := len(plan.replicas) - _DRAWN_REPLICAS) > 0:
        yield f"      and {rest} more replicas"
