"""What another policy would have done in a run, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer

from pentad.agent.events import Record
from pentad.agent.policy_replay import BASIS, PolicyReplay, ReplayedCall, first_situation, replay_policy
from pentad.application.cli.output import counted, note, print_json, print_table
from pentad.errors import InvalidRequest
from pentad.model.control.plans import LEVERS, Plan, plans
from pentad.model.control.situation import PART
from pentad.model.control.what_if import Outcome, policy_of
from pentad.model.routing.elastic import Elastic
from pentad.types import Decision


def show_replay(records: Sequence[Record], policy: str, *, as_json: bool) -> None:
    """Prints what the policy would have done. Raises UnknownName, InvalidRequest."""
    found = replay_policy(records, policy_of(policy))
    if as_json:
        print_json(_summary(found, policy))
        return
    rows = [
        (call.step, _chosen(call.what_if.recorded), _chosen(call.what_if.chosen), *_numbers(call.estimate))
        for call in found.calls
    ]
    columns = ("step", "was", "would be", "seconds", "money", "tokens", "success")
    print_table(columns, rows, empty="")
    observed, estimate = _numbers(found.observed), _numbers(found.estimate)
    typer.echo(f"\n{found.same} of {counted(len(found.calls), 'decision')} the same")
    typer.echo(f"was:      {observed[0]} s, {observed[1]} money, {observed[2]} tokens")
    typer.echo(f"would be: {estimate[0]} s, {estimate[1]} money, {estimate[2]} tokens")
    note(f"estimated by {BASIS}")
    if found.unexplained:
        left_out = counted(found.unexplained, "call")
        note(f"{left_out} left out, whose decisions do not say what they were made from")


def show_objectives(records: Sequence[Record], policy: str, *, as_json: bool) -> None:
    """Prints what each objective would have chosen at the run's first joint decision, and what it would take.

    Raises InvalidRequest for a policy that does not choose jointly, or a run without such a decision.
    """
    router = policy_of(policy)
    if not isinstance(router, Elastic):
        raise InvalidRequest(
            f"policy {policy!r} chooses the model alone", hint="set --policy elastic", param="policy"
        )
    found = plans(first_situation(records), router)
    if as_json:
        print_json(
            [
                {"objective": plan.objective, "chosen": plan.levers, "expected": asdict(plan.expected)}
                for plan in found
            ]
        )
        return
    levers = {name.rpartition(" ")[2]: name for name in ("model", *LEVERS)}
    rows = [
        (plan.objective, *(plan.levers.get(name, "") for name in levers.values()), *_plan_numbers(plan))
        for plan in found
    ]
    print_table(("objective", *levers, "seconds", "money", "joules", "success"), rows, empty="")


def _plan_numbers(plan: Plan) -> tuple[str, ...]:
    seconds, money, _, success = _numbers(plan.expected)
    return seconds, money, f"{plan.expected.joules:.3g}", success


def _chosen(decision: Decision) -> str:
    parts = dict(decision.parts)
    levers = (parts.get(name) for name in ("agent: way", "model: answer tokens", "resource: queue"))
    return ", ".join([decision.chosen, *(lever for lever in levers if lever and lever != "as asked")])


def _numbers(outcome: Outcome) -> tuple[str, str, str, str]:
    success = "-" if outcome.success is None else f"{outcome.success:.2f}"
    return f"{outcome.seconds:.2f}", f"{outcome.money:.3g}", f"{outcome.tokens:.0f}", success


def _summary(found: PolicyReplay, policy: str) -> dict[str, Any]:
    return {
        "policy": policy,
        "decisions": len(found.calls),
        "same": found.same,
        "left_out": found.unexplained,
        "observed": asdict(found.observed),
        "estimate": asdict(found.estimate),
        "estimated_by": BASIS,
        "calls": [_line(call) for call in found.calls],
    }


def _line(call: ReplayedCall) -> dict[str, Any]:
    return {
        "step": call.step,
        "attempt": call.attempt,
        "same": call.what_if.same,
        "recorded": _levers(call.what_if.recorded),
        "chosen": _levers(call.what_if.chosen),
        "observed": asdict(call.observed),
        "estimate": asdict(call.estimate),
    }


def _levers(decision: Decision) -> dict[str, Any]:
    parts = {name: told for name, told in decision.parts if name != PART}
    return {"model": decision.chosen, "constraint": decision.constraint, **parts}
