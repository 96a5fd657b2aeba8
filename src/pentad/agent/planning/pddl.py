"""Pddl: the model writes the planning problem, a classical planner solves it, a validator judges."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pentad.agent.exchange import Exchange
from pentad.agent.planning import progress
from pentad.agent.planning.allowance import bounded
from pentad.agent.planning.answers import answers_failed, plain_answer, read_plainly
from pentad.agent.planning.base import (
    Decided,
    Draft,
    MadePlan,
    ModelCallDraft,
    Reading,
    Selection,
    Thought,
    Unusable,
    View,
    WantsTools,
    in_sequence,
    majority,
)
from pentad.agent.planning.prompts import facts
from pentad.agent.planning.strips.grounding import ground
from pentad.agent.planning.strips.reading import Domain, pddl_text, read_domain, read_problem
from pentad.agent.planning.strips.search import MAX_EXPANDED, Found, solve
from pentad.agent.planning.strips.task import Step, Unplannable, written
from pentad.agent.planning.strips.validator import why_invalid
from pentad.agent.planning.thoughts import chose, labelled, think
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.errors import Incompatible
from pentad.ranges import in_range
from pentad.types import ToolCall

_DOMAIN, _PROBLEM, _PLAN, _STEPS, _SAID = "domain", "problem", "plan", "steps", "said"
_FORM = (
    "Use STRIPS with :typing and :negative-preconditions: only and, not and =. Answer with the PDDL alone."
)
_EXAMPLE = (
    "(define (domain doors) (:requirements :strips :typing) (:types room)\n"
    " (:predicates (at ?r - room) (door ?a - room ?b - room))\n"
    " (:action go :parameters (?a - room ?b - room) :precondition (and (at ?a) (door ?a ?b))\n"
    "  :effect (and (at ?b) (not (at ?a)))))",
    "(define (problem walk) (:domain doors) (:objects hall attic - room)\n"
    " (:init (at hall) (door hall attic)) (:goal (and (at attic))))",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pddl:
    """Has the model translate the goal into PDDL, finds the plan by search, and carries it out.

    The model writes the domain, an action for each tool with the tool's parameters in order, and the
    problem. What the parser, the grounding, the search or the validator finds wrong goes back to it, at
    most `repairs` times. The plan's steps are tool calls that need no model, each after the one before;
    where one fails, the problem is written anew from what is known. Without tools the answer is the plan.

    Source: Guan et al. 2023, "Leveraging Pre-trained Large Language Models to Construct and Utilize World
    Models for Model-based Task Planning". Ours judges with its own validator, not with human notes, and
    takes a domain that people wrote and checked.
    """

    domain: str = ""
    """The domain as PDDL, where people know it; the model writes it where it is empty."""
    repairs: int = 5
    """Times that PDDL of no use is written anew, over domain and problem."""
    replans: int = 1
    """Plans made anew after a step that failed."""
    domain_tokens: int = 768
    """Of one domain, at most."""
    problem_tokens: int = 512
    """Of one problem, at most."""
    max_expanded: int = MAX_EXPANDED
    """States that one search looks at, at most."""

    name = "pddl"

    def __post_init__(self) -> None:
        for name, least in (("repairs", 0), ("replans", 0), ("domain_tokens", 1), ("problem_tokens", 1)):
            in_range(name, getattr(self, name), least=least)
        in_range("max_expanded", self.max_expanded, least=1)
        if importlib.util.find_spec("pddl") is None:
            raise Incompatible("planner 'pddl' needs a parser", hint="pip install 'pentad[pddl]'")
        if self.domain:
            read_domain(self.domain)

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:  # noqa: ARG002
        """None."""
        return {}

    def exhausted(self, state: RunState) -> bool:
        """Whether even the answer failed too often; without a plan the model still answers."""
        return answers_failed(state, 2)

    def draft(self, view: View) -> Draft:
        """Domain, problem, the plan, its steps, and the answer."""
        state = view.state
        last = state.closed[-1] if state.closed else None
        if state.step >= state.spec.max_steps:
            return self._draft_answer(view)
        if last is not None and last.label == _PLAN and last.outcome in ("planned", "replanned"):
            calls = self._calls(view)
            return Decided(purpose="act", calls=calls, label=_STEPS) if calls else self._say(state)
        if last is not None and last.label == _STEPS and not (self._again(state)):
            done = all(result.status in ("ok", "unknown") for result in last.results.values())
            return self._say(state) if done else self._draft_answer(view)
        if last is not None and last.label == _PROBLEM and last.outcome == "thought":
            return Decided(purpose="plan", text=last.text, label=_PLAN)
        failed = [e for e in state.closed if e.label in (_DOMAIN, _PROBLEM) and e.outcome == "failed"]
        if len(failed) > self.repairs or not bounded(state, self.problem_tokens):
            return self._draft_answer(view)
        return self._draft_pddl(view)

    def select(self, view: View, candidates: Sequence[Exchange]) -> Selection:  # noqa: ARG002
        """The text that most agree with."""
        return majority(self.name, candidates)

    def read(self, view: View, answer: Exchange) -> Reading:
        """PDDL that is of use is a thought, its solution the plan; the plan's steps are calls."""
        match answer.label:
            case "domain":
                return self._read_domain(view, answer)
            case "problem":
                return self._read_problem(view, answer)
            case "plan":
                return self._made(view, answer)
            case "steps":
                return WantsTools(calls=answer.calls, needs=in_sequence(len(answer.calls)))
        return read_plainly(answer)

    def _domain(self, state: RunState) -> Domain | None:
        if self.domain:
            return read_domain(self.domain)
        made = labelled(state, _DOMAIN)
        return read_domain(pddl_text(made[-1].text)) if made else None

    def _rewrites_domain(self, state: RunState) -> bool:
        """Whether the domain is due: there is none, or two problems in a row could not be solved with it."""
        if self.domain:
            return False
        made = [n for n, e in enumerate(state.closed) if e.label == _DOMAIN and e.outcome == "thought"]
        if not made:
            return True
        since = state.closed[made[-1] + 1 :]
        return sum(e.label == _PROBLEM and e.outcome == "failed" for e in since) >= 2

    def _draft_pddl(self, view: View) -> ModelCallDraft:
        state = view.state
        of_domain = self._rewrites_domain(state)
        label = _DOMAIN if of_domain else _PROBLEM
        lines = [
            f"- {tool.name}({', '.join(tool.parameters.get('properties', {}))}): {tool.description}"
            for tool in view.tools
        ]
        tools = "\n".join(lines)
        parts = [f"Goal: {state.goal}"]
        if of_domain:
            system = (
                f"You write the PDDL domain of a task, without a problem. {_FORM}\nExample:\n{_EXAMPLE[0]}"
            )
            if tools:
                parts.append(
                    f"One action for each tool that is of use, with its name and parameters:\n{tools}"
                )
        else:
            system = f"You write the PDDL problem of a task in a domain. {_FORM}\nExample:\n{_EXAMPLE[1]}"
            parts.append(f"Domain:\n{self.domain or pddl_text(labelled(state, _DOMAIN)[-1].text)}")
        known, lost = progress.known(state), progress.failed(state, ())
        if known or lost:
            parts.append(
                f"Done and found out so far; begin from how things are now:\n{facts([*known, *lost])}"
            )
        failed = [e for e in state.closed if e.label in (_DOMAIN, _PROBLEM)]
        if failed and failed[-1].outcome == "failed":
            text = pddl_text(failed[-1].text)
            parts.append(f"Your last {failed[-1].label} was:\n{text}\nIt is of no use: {failed[-1].detail}")
        most = self.domain_tokens if of_domain else self.problem_tokens
        return think(label, system, "\n\n".join(parts), max_tokens=most)

    def _read_domain(self, view: View, answer: Exchange) -> Reading:
        try:
            domain = read_domain(pddl_text(answer.text))
        except Unplannable as error:
            return Unusable(problem=progress.short(str(error)))
        known = {_tool_name(tool.name): tool for tool in view.tools}
        for schema in domain.schemas if known else ():
            tool = known.get(_tool_name(schema.name))
            if tool is None:
                return Unusable(problem=f"action {schema.name} is no tool; known: {', '.join(known)}")
            wanted = len(tool.parameters.get("properties", {}))
            if len(schema.parameters) != wanted:
                told = f"action {schema.name} has {len(schema.parameters)} parameters, its tool {wanted}"
                return Unusable(problem=told)
        names = ", ".join(schema.name for schema in domain.schemas)
        return Thought(decisions=(chose(self.name, _DOMAIN, names, constraint=self._rounds(view.state)),))

    def _solved(self, state: RunState, text: str) -> Found:
        """Raises Unplannable for a problem of no use."""
        domain = self._domain(state)
        assert domain is not None, "a problem is asked for once there is a domain"
        task = ground(domain, read_problem(pddl_text(text), domain))
        found = solve(task, self.max_expanded)
        if found.plan is not None and (wrong := why_invalid(task, found.plan)):
            raise Unplannable((wrong,))
        return found

    def _read_problem(self, view: View, answer: Exchange) -> Reading:
        if self._domain(view.state) is None:
            return Unusable(problem="there is no domain yet")
        try:
            found = self._solved(view.state, answer.text)
        except Unplannable as error:
            return Unusable(problem=progress.short(str(error)))
        if found.plan is None:
            return Unusable(problem=found.why)
        chosen = f"{len(found.plan)} steps, {found.expanded} states looked at"
        return Thought(decisions=(chose(self.name, _PROBLEM, chosen, constraint=self._rounds(view.state)),))

    def _made(self, view: View, answer: Exchange) -> Reading:
        plan = self._solved(view.state, answer.text).plan or ()
        tools = {_tool_name(tool.name): tool.name for tool in view.tools}
        goals = tuple((tools.get(_tool_name(step[0]), ""), written(step)) for step in plan)
        chosen = " ".join(written(step) for step in plan) or "nothing is to be done"
        decision = chose(self.name, _PLAN, chosen, constraint="every step is valid and the goal is reached")
        return MadePlan(goals=goals, decisions=(decision,))

    def _calls(self, view: View) -> tuple[ToolCall, ...]:
        """The plan's steps as calls; none where some step has no tool."""
        offered = {tool.name: tool for tool in view.tools}
        calls = []
        for number, (name, task) in enumerate(view.state.plan or ()):
            if name not in offered:
                return ()
            values = _step(task)[1:]
            named = dict(zip(offered[name].parameters.get("properties", {}), values, strict=False))
            ident = f"s{view.state.step}c{number}"
            calls.append(ToolCall(id=ident, name=name, arguments=json.dumps(named, ensure_ascii=False)))
        return tuple(calls)

    def _again(self, state: RunState) -> bool:
        failed = any(r.status == "failed" for r in state.closed[-1].results.values())
        made = sum(e.outcome in ("planned", "replanned") for e in state.closed)
        return failed and made <= self.replans

    def _say(self, state: RunState) -> Decided:
        steps = [task for _, task in state.plan or ()]
        carried_out = state.closed[-1].label == _STEPS
        text = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
        head = "Done:" if carried_out else "The plan:"
        return Decided(
            purpose="answer", text=f"{head}\n{text}" if steps else "Nothing is to be done.", label=_SAID
        )

    def _draft_answer(self, view: View) -> ModelCallDraft:
        told = "" if view.state.plan else " No plan could be found by search; say what you can."
        return plain_answer(view.state, f"Answer every part of the question.{told}")

    def _rounds(self, state: RunState) -> str:
        failed = sum(e.label in (_DOMAIN, _PROBLEM) and e.outcome == "failed" for e in state.closed)
        return f"{failed} of {self.repairs} repairs"


def _tool_name(name: str) -> str:
    """A name as PDDL and tools spell it alike."""
    return name.casefold().replace("-", "_")


def _step(text: str) -> Step:
    return tuple(text.strip("()").split())
