"""Parallel: the plan is a graph of calls, and each begins as soon as those that it needs have returned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pentad.agent.exchange import Exchange
from pentad.agent.planning import progress
from pentad.agent.planning.base import (
    Decided,
    Draft,
    MadePlan,
    MessageGroup,
    ModelCallDraft,
    Reading,
    Unusable,
    View,
    WantsTools,
)
from pentad.agent.planning.call_plan import CallPlan, call_plan, call_plan_schema, call_plan_shots, signatures
from pentad.agent.planning.prompts import facts, unavailable
from pentad.agent.planning.react import React
from pentad.agent.planning.thoughts import chose
from pentad.agent.state import RunState
from pentad.types import Message, OutputFormat

_WAVE = "calls"
_TOLD = (
    "You lay out tool calls that reach a goal. A call may use the result of an earlier one: write $1 for "
    "the result of call 1. `after` lists calls that must come before for another reason. Calls that need "
    "nothing of each other are made at once. Answer in JSON."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel(React):
    """Plans all calls with their arguments at once and makes each as soon as what it needs is there.

    One question lays out the calls, one more asks for the answer; what lies between needs no model. So
    the time of the calls is that of the longest way through the graph. Where calls fail, those that
    need them are not made, and the model plans anew from what is known.

    Source: survey III-B, parallel processing of sub-goals; Kim et al. 2023, "An LLM Compiler for
    Parallel Function Calling"; with `replans` 0 it is the one-step agent of Ruan et al. 2023, "TPTU".
    Ours journals the whole plan before its first call, plans under the tools' schemas and lets members
    of a team be called like tools. `graph` asks for the arguments of
    each call when it begins, which smaller models do better, and waits for the slowest call of a step.
    """

    mode: Literal["free", "guided"] = "guided"
    """Only `guided`: the plan decides what is done."""
    max_plan: int = 8
    """Most calls of a plan."""
    plan_tokens: int = 512
    """Of one plan, at most."""

    name = "parallel"

    def __post_init__(self) -> None:
        React.__post_init__(self)
        if self.mode != "guided":
            raise ValueError("mode must be 'guided'; planner react has mode 'free'")

    def draft(self, view: View) -> Draft:
        """The plan, then its calls without asking anyone, then the answer."""
        state = view.state
        last = state.closed[-1] if state.closed else None
        if state.step < state.spec.max_steps and view.tools:
            if last is not None and last.outcome in ("planned", "replanned") and state.plan:
                return Decided(purpose="act", calls=self._planned(view).calls, label=_WAVE)
            if last is None or (last.purpose == "plan" and last.outcome == "failed") or self._again(state):
                return self._draft_plan(view)
        return self._draft_answer(view)

    def read(self, view: View, answer: Exchange) -> Reading:
        """As `react`; the calls of the plan are those of one step."""
        if answer.label == _WAVE:
            return WantsTools(calls=answer.calls, needs=self._planned(view).needs)
        return React.read(self, view, answer)

    def _missing(self, view: View, answer: Exchange) -> str:  # noqa: ARG002
        return ""

    def _again(self, state: RunState) -> bool:
        """Whether the calls just made leave something that another plan may reach."""
        last = state.closed[-1] if state.closed else None
        made = sum(e.outcome in ("planned", "replanned") for e in state.closed)
        if last is None or last.label != _WAVE or made > self.replans:
            return False
        return any(result.status == "failed" for result in last.results.values())

    def _goals(self, view: View) -> tuple[progress.SubGoal, ...]:
        """Each call of the newest wave with what came of it."""
        state = view.state
        last = next((e for e in reversed(state.closed) if e.label == _WAVE), None)
        goals = []
        for place, (tool, task) in enumerate(state.plan or ()):
            result = None if last is None else last.results.get(place)
            good = result is not None and result.status in ("ok", "unknown")
            lost = "" if result is None or good else progress.short(result.content)
            status: Literal["open", "done", "failed"] = "done" if good else "failed" if lost else "open"
            goals.append(progress.SubGoal(tool=tool, task=task, status=status, problem=lost))
        return tuple(goals)

    def _planned(self, view: View) -> CallPlan:
        made = [e for e in view.state.closed if e.outcome in ("planned", "replanned")]
        return call_plan(made[-1].text, f"s{made[-1].step}c")

    def _draft_plan(self, view: View) -> ModelCallDraft:
        state = view.state
        known, problem = progress.known(state), progress.last_problem(state)
        failed = [f"- {g.tool}({g.task}): {g.problem}" for g in self._goals(view) if g.status == "failed"]
        parts = [f"Goal: {state.goal}"]
        if known:
            parts.append(f"Known so far; do not ask for it again:\n{facts(known)}")
        if failed:
            lines = "\n".join(failed)
            parts.append(f"These calls failed; plan what is missing in another way:\n{lines}")
        if problem:
            parts.append(f"The last plan was of no use: {problem}")
        asked = Message(role="user", content="\n\n".join(parts))
        shots = call_plan_shots(view.tools)
        system = "\n\n".join(
            filter(None, [_TOLD, "Tools:\n" + signatures(view.tools), unavailable(view.withheld)])
        )
        return ModelCallDraft(
            purpose="plan",
            system=system,
            turns=(
                *((MessageGroup(messages=shots, pinned=True),) if shots else ()),
                MessageGroup(messages=(asked,), pinned=True, noted=True),
            ),
            format=OutputFormat(kind="json_schema", value=call_plan_schema(view.tools, self.max_plan)),
            max_tokens=self.plan_tokens,
            next_hint="tool",
        )

    def _read_plan(self, view: View, answer: Exchange) -> Reading:
        try:
            plan = call_plan(answer.text, "c")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            cut = " (it was cut at plan_tokens)" if answer.reason == "length" else ""
            why = f": {error}" if "wait for" in str(error) else ""
            return Unusable(problem=f"the plan is no JSON of the asked form{why}{cut}")
        offered = {tool.name: tool for tool in view.tools}
        unknown = [call.name for call in plan.calls if call.name not in offered]
        if unknown or not self.min_plan <= len(plan.calls) <= self.max_plan:
            return Unusable(problem=f"the plan has {len(plan.calls)} calls, unknown tools: {unknown}")
        done = {
            (e.calls[place].name, progress.canonical(e.calls[place].arguments))
            for e in view.state.closed
            for place, result in e.results.items()
            if result.status in ("ok", "unknown")
        }
        for number, call in enumerate(plan.calls, 1):
            repeated = (call.name, progress.canonical(call.arguments)) in done
            if repeated and offered[call.name].effects != "none":
                return Unusable(problem=f"call {number} has been made already")
        decision = chose(
            self.name,
            "plan",
            f"{len(plan.calls)} calls, the longest chain has {plan.depth}",
            candidates=tuple((name, None) for name in sorted(offered)),
            constraint=f"at most {self.max_plan} calls",
        )
        goals = tuple((call.name, call.arguments) for call in plan.calls)
        return MadePlan(goals=goals, needs=plan.needs, decisions=(decision,))
