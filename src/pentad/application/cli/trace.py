"""A run as people read it: events as they happen, the ending, and where the time went."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pentad.agent.events import (
    Planned,
    PlannerDecided,
    Recalled,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
    StepEnded,
)
from pentad.agent.explain import Explanation
from pentad.agent.model_events import Compacted, ModelAnswered, ModelFailed, SampleSelected, TextStreamed
from pentad.agent.prompt_store import Prompt
from pentad.agent.rows import RunRow
from pentad.agent.state import RunState
from pentad.agent.sub_run_events import Coordinated, SubRunChanged, SubRunEnded, SubRunStarted
from pentad.agent.tool_events import (
    ApprovalAnswered,
    ApprovalAsked,
    ResultReduced,
    ToolIntended,
    ToolReturned,
    ToolsOffered,
    ToolsWithheld,
)
from pentad.application.cli.output import counted, duration, plain
from pentad.json_text import parse_json
from pentad.model.control.situation import PART
from pentad.types import Decision

_MOST_SHOWN = 500
"""Characters of a tool result or text shown on the terminal; the journal has the whole."""
_WIDTH = 32
"""Characters of the line that a waterfall is drawn on."""


def line_of(record: Record) -> str | None:
    """One event as text, or None for those that say nothing to a person."""
    match record.event:
        case RunStarted() as e:
            text = f"run     {record.run_id}\nagent   {e.agent.get('name', '')}\ngoal    {e.goal}"
        case RunResumed() as e:
            text = f"resumed ({counted(e.in_doubt, 'tool call')} in doubt)"
        case Recalled() as e:
            text = f"recall  {len(e.items)} memories"
        case Compacted() as e:
            text = f"compact {e.reason}: {e.before_tokens} to {e.after_tokens} tokens"
            if e.left is not None and e.left.turns:
                text += f", {e.left.turns[0].id} to {e.left.turns[-1].id} left"
        case Planned() as e:
            goals = [
                f"  {i}. {task}" + (f" [{tool}]" if tool else "") + _after(e, i - 1)
                for i, (tool, task) in enumerate(e.goals, 1)
            ]
            text = "\n".join(["plan", *goals])
        case ApprovalAsked() as e:
            what = (
                f"{e.tool}({_arguments(e.arguments)})"
                if e.kind == "tool"
                else f"{e.tool}: {_short(e.message)}"
            )
            text = f"ask     {what}\n        waits for approval {e.approval_id}"
        case ApprovalAnswered() as e:
            who = "" if e.by == "person" else " (no answer in time)"
            said = f": {_short(e.note)}" if e.note and e.by == "person" else ""
            text = f"asked   {'approved' if e.approved else 'denied'}{who}{said}"
        case ToolsWithheld() as e if e.tools:
            text = "\n".join(f"without {name}: {_short(why)}" for name, why in e.tools)
        case ToolsOffered() as e if e.withheld:
            text = f"offers  {', '.join(e.tools)}; {len(e.withheld)} others withheld: {e.withheld[0][1]}"
        case ResultReduced() as e:
            text = f"reduce  {e.tool}: the result from {e.before_tokens} to {e.after_tokens} tokens"
        case ToolIntended() as e:
            text = f"call    {e.tool}({_arguments(e.arguments)})"
        case ToolReturned() as e:
            text = f"result  {'' if e.status == 'ok' else f'[{e.status}] '}{_short(e.content)}"
        case ModelAnswered() as e if e.text and not e.tool_calls and e.purpose == "act":
            text = f"model   {_short(e.text)}"
        case ModelAnswered(purpose="think") as e:
            text = f"thinks  {f'{e.label}: ' if e.label else ''}{_short(e.text)}"
        case PlannerDecided() as e:
            what = ", ".join(call.name for call in e.calls) or _short(e.text)
            text = f"decides {f'{e.label}: ' if e.label else ''}{what}"
        case ModelFailed() as e:
            text = f"model   failed: {e.error}" + (", trying again" if e.retry else "")
        case SubRunStarted() as e:
            text = f"begin   {e.agent}: {_short(e.goal)}\n        as sub-run {e.run_id}"
        case SubRunChanged(status="waiting") as e:
            text = f"wait    sub-run {e.run_id} asks a person"
        case SubRunEnded() as e:
            text = f"end     sub-run {e.run_id}: {e.status}, {e.tokens} tokens"
        case Coordinated(calls=calls) if calls:
            text = f"step    the coordinator gives out {len(calls)} tasks"
        case SampleSelected() as e:
            text = f"sample  answer {e.index + 1} is taken"
        case StepEnded(outcome="failed" | "refused" | "replanned") as e if e.detail:
            text = f"step    {e.outcome}: {e.detail}"
        case RunEnded() as e:
            lines = [f"answer  {e.answer}"] if e.answer or e.status == "answered" else []
            lines += (
                [f"ended   {e.status}" + (f": {e.error}" if e.error else "")]
                if e.status != "answered"
                else []
            )
            text = "\n".join(lines)
        case _:
            return None
    return plain(text)


def _after(plan: Planned, place: int) -> str:
    """What a sub-goal waits for, where the plan is no sequence."""
    if plan.needs is None:
        return ""
    waits = ", ".join(str(other + 1) for other in plan.needs[place])
    return f" after {waits}" if waits else " at once"


def printer() -> Callable[[Record], None]:
    """Prints a run's records to standard output as they come."""

    def show(record: Record) -> None:
        if isinstance(record.event, TextStreamed):
            return
        if (line := line_of(record)) is not None:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    return show


def ending(state: RunState, explanation: Explanation) -> str:
    """Usage and time per layer, after a run."""
    total = state.totals
    used = (
        f"usage   {counted(total.model_calls, 'model call')}, {total.prompt_tokens} prompt tokens "
        f"({total.cached_tokens} cached), {total.completion_tokens} generated, "
        f"{counted(explanation.tool_calls, 'tool call')}, {duration(explanation.active_s)}"
    )
    return (
        used
        + "\ntime    "
        + ", ".join(
            [f"{share.layer} {duration(share.seconds)}" for share in explanation.shares]
            + [f"unattributed {explanation.residual_fraction:.1%}"]
        )
    )


def run_summary(state: RunState) -> dict[str, Any]:
    """A run as data."""
    return {
        "run_id": state.run_id,
        "agent": state.spec.name,
        "goal": state.goal,
        "tenant": state.tenant,
        "status": state.status,
        "answer": state.answer,
        "error": state.error,
        "steps": len(state.closed),
        "plan": [{"tool": tool or None, "task": task} for tool, task in state.plan or ()],
        "active_s": state.active_s,
        "parent": None if state.parent is None else asdict(state.parent),
        "sub_runs": [
            {"run_id": child.run_id, "agent": child.agent, "goal": child.goal, "status": child.status}
            for _, child in sorted(state.children.items())
        ],
        "usage": asdict(state.totals),
    }


SUB_RUN_COLUMNS = ("sub-run", "agent", "status", "step", "took", "tokens", "tool calls", "cost")


def sub_run_rows(explanation: Explanation) -> list[tuple[object, ...]]:
    """The sub-runs as lines of a table."""
    return [
        (
            each.run_id,
            plain(each.agent),
            each.status,
            each.step,
            "-" if each.seconds is None else duration(each.seconds),
            each.tokens,
            each.tool_calls,
            f"{each.cost:g}",
        )
        for each in explanation.sub_runs
    ]


def row_summary(row: RunRow) -> dict[str, Any]:
    """One line of the list of runs as data."""
    return asdict(row)


def explanation_summary(explanation: Explanation) -> dict[str, Any]:
    """An explanation as data."""
    return asdict(explanation) | {"residual_fraction": explanation.residual_fraction}


def bar_rows(explanation: Explanation) -> list[tuple[object, ...]]:
    """The waterfall as lines of a table: what took at least a thousandth of the run, drawn to scale."""
    whole = max((bar.end_s for bar in explanation.waterfall), default=0.0) or 1.0
    shown = [b for b in explanation.waterfall if b.seconds >= whole / 1000 or b.limit]
    return [
        (
            bar.step if bar.attempt is None else f"{bar.step}.{bar.attempt}",
            bar.kind if bar.name == bar.kind else f"{bar.kind} {plain(bar.name)}",
            duration(bar.start_s),
            duration(bar.seconds),
            "-" if bar.expected_s is None else duration(bar.expected_s),
            _short(plain(bar.limit or "-")),
            _drawn(bar.start_s / whole, bar.end_s / whole),
        )
        for bar in shown
    ]


def _drawn(start: float, end: float) -> str:
    """A stretch of the run on a line of `_WIDTH` characters."""
    first = min(_WIDTH - 1, int(start * _WIDTH))
    last = max(first + 1, round(end * _WIDTH))
    return " " * first + "#" * (min(last, _WIDTH) - first)


def prompt_lines(prompt: Prompt) -> str:
    """One prompt under a line that says which call it belongs to."""
    head = f"== step {prompt.step}, call {prompt.attempt}: {prompt.purpose} ({prompt.sha256[:12] or 'none'})"
    text = "not kept: its data label, its age or prompt_days 0" if prompt.text is None else prompt.text
    return plain(f"{head}\n{text}\n")


def decision_line(decision: Decision) -> str:
    """One decision with what it was chosen from and the limit that bound it."""
    others = ", ".join(name if score is None else f"{name} {score:g}" for name, score in decision.candidates)
    bound = f"; bound by {decision.constraint}" if decision.constraint else ""
    of = f" of {others}" if others else ""
    parts = "".join(f"; {name}: {found}" for name, found in decision.parts if name != PART)
    return plain(
        f"{decision.layer}/{decision.policy}: {decision.subject} = {decision.chosen}{of}{bound}{parts}"
    )


def _arguments(text: str) -> str:
    try:
        value = parse_json(text or "{}")
    except ValueError:
        return _short(text)
    if not isinstance(value, dict):
        return _short(text)
    return _short(", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in value.items()))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]} ... ({len(line)} characters)"
