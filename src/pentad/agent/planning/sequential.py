"""Sequential: one call at a time, each chosen and filled in once the result of the one before is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pentad.agent.exchange import Exchange
from pentad.agent.planning import progress
from pentad.agent.planning.answers import AnswersPlainly, answer_from_calls, called, read_plainly
from pentad.agent.planning.base import (
    Answers,
    Decided,
    Draft,
    MessageGroup,
    ModelCallDraft,
    Reading,
    Thought,
    Unusable,
    View,
    WantsTools,
)
from pentad.agent.planning.call_plan import signatures
from pentad.agent.planning.prompts import unavailable, worked_tasks
from pentad.agent.planning.thoughts import chose, lost, think
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.json_text import parse_json
from pentad.ranges import in_range
from pentad.types import Message, OutputFormat, ToolCall

_NEXT, _CALL, _SAID = "next", "call", "said"
_TOLD = (
    "You reach a goal by tool calls, one at a time. Give the next call, with values from the goal or from "
    "the results so far; once the results say what was asked, give the answer. Answer in JSON."
)
_GOAL = "Which floor is the office of Ann's boss on?"
_WAY = (
    ("boss_of", {"person": "Ann"}, "Ben"),
    ("office_of", {"person": "Ben"}, "B12"),
    ("floor_of", {"office": "B12"}, "3"),
)
_ANSWER = "The office of Ann's boss is on floor 3."
_FACTS = "Answer the question from the facts."


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequential(AnswersPlainly):
    """Asks for one call at a time and shows its result before it asks for the next.

    Each answer is a call with its arguments, or the answer, in JSON that the tools' schemas bind, so that
    models of a few hundred million parameters keep to it. Each call takes two steps of the run: one that
    asks the model and one that makes the call. Where the same call comes again, or nothing usable comes,
    the answer is made of what is known. `parallel` writes all calls at once.

    Source: Ruan et al. 2023, "TPTU: Large Language Model-based AI Agents for Task Planning and Tool
    Usage", section 2.2 (sequential agent; its one-step agent is `parallel` with `replans` 0). Ours fills
    in the arguments with the choice of the tool.
    """

    min_calls: int = 1
    """Results that it must have before it may answer; 0 lets a goal be answered at once."""
    call_tokens: int = 160
    """Of one call or answer, at most."""
    max_repairs: int = 1
    """Times that an answer of no use is asked for again."""

    name = "sequential"

    def __post_init__(self) -> None:
        in_range("min_calls", self.min_calls, least=0)
        in_range("call_tokens", self.call_tokens, least=1)
        in_range("max_repairs", self.max_repairs, least=0)

    def draft(self, view: View) -> Draft:
        """The next call, which is then made, or the answer."""
        state = view.state
        last = state.closed[-1] if state.closed else None
        if last is not None and last.label == _NEXT and last.outcome == "thought":
            item = parse_json(last.text)
            if "answer" in item:
                return Decided(purpose="answer", text=str(item["answer"]), label=_SAID)
            if state.step < state.spec.max_steps:
                return Decided(purpose="act", calls=(_call(item, state.step),), label=_CALL)
        over = progress.repeats(state) or lost(state, _NEXT) > self.max_repairs
        answering = last is not None and last.purpose == "answer"
        if over or answering or not view.tools or state.step + 1 >= state.spec.max_steps:
            return answer_from_calls(state, _FACTS)
        return self._draft_next(view)

    def read(self, view: View, answer: Exchange) -> Reading:
        """The next call is a thought, which the planner then makes."""
        if answer.label == _CALL:
            return WantsTools(calls=answer.calls)
        if answer.label == _SAID:
            return Answers(text=answer.text)
        if answer.label != _NEXT:
            return read_plainly(answer)
        names = [tool.name for tool in view.tools]
        try:
            item = parse_json(answer.text)
            chosen = "answer" if "answer" in item else _call(item, 0).name
            empty = "answer" in item and not str(item["answer"]).strip()
        except (ValueError, TypeError, KeyError, RecursionError):
            cut = " (it was cut at call_tokens)" if answer.reason == "length" else ""
            return Unusable(problem=f"it is no JSON of the asked form{cut}")
        if "answer" in item and not self._may_answer(view.state):
            return Unusable(problem="nothing has been found out yet; give a call")
        if empty or chosen not in (*names, "answer"):
            return Unusable(problem="the answer is empty" if empty else f"there is no tool {chosen!r}")
        if "answer" not in item and self._done_before(view, item):
            return Unusable(problem=f"{chosen!r} was called so already, and is not called again")
        candidates = tuple((name, None) for name in (*names, "answer"))
        made = f"after {sum(len(e.results) for e in view.state.closed)} results"
        return Thought(decisions=(chose(self.name, "next", chosen, candidates=candidates, constraint=made),))

    def _may_answer(self, state: RunState) -> bool:
        return sum(len(e.results) for e in state.closed) >= self.min_calls

    def _done_before(self, view: View, item: Mapping[str, Any]) -> bool:
        """Whether the call would repeat an effect."""
        call = _call(item, 0)
        tool = next((tool for tool in view.tools if tool.name == call.name), None)
        if tool is None or tool.effects == "none":
            return False
        made = [
            (e.calls[place].name, progress.canonical(e.calls[place].arguments))
            for e in view.state.closed
            for place, result in e.results.items()
            if result.status in ("ok", "unknown")
        ]
        return (call.name, progress.canonical(call.arguments)) in made

    def _draft_next(self, view: View) -> ModelCallDraft:
        state = view.state
        shots = _shots(view.tools)
        system = "\n\n".join(
            filter(
                None,
                [
                    state.spec.instructions,
                    _TOLD,
                    "Tools:\n" + signatures(view.tools),
                    unavailable(view.withheld),
                ],
            )
        )
        problem = progress.last_problem(state)
        told = f"\n\nThe last one was of no use: {problem}" if problem and lost(state, _NEXT) else ""
        draft = think(
            _NEXT,
            system,
            f"{_asked(state.goal, called(state))}{told}",
            max_tokens=self.call_tokens,
            form=OutputFormat(kind="json_schema", value=_schema(view.tools, answers=self._may_answer(state))),
        )
        pinned = (MessageGroup(messages=shots, pinned=True),) if shots else ()
        return replace(draft, turns=(*pinned, *draft.turns), next_hint="tool")


def _schema(tools: Sequence[Tool], *, answers: bool) -> dict[str, Any]:
    """A call of one of the tools, or, where it may be given, the answer."""
    forms: list[dict[str, Any]] = [
        {"tool": {"const": tool.name}, "arguments": tool.parameters} for tool in tools
    ]
    if answers:
        forms.append({"answer": {"type": "string"}})
    return {
        "anyOf": [
            {"type": "object", "properties": form, "required": list(form), "additionalProperties": False}
            for form in forms
        ]
    }


def _call(item: Mapping[str, Any], step: int) -> ToolCall:
    arguments = json.dumps(dict(item["arguments"]), ensure_ascii=False)
    return ToolCall(id=f"s{step}", name=str(item["tool"]), arguments=arguments)


def _asked(goal: str, done: Sequence[tuple[str, str]]) -> str:
    lines = "\n".join(f"{number}. {call} -> {came}" for number, (call, came) in enumerate(done, 1))
    return f"Goal: {goal}\nResults so far: {lines or 'none'}\nNext:"


def _shots(tools: Sequence[Tool]) -> tuple[Message, ...]:
    """Worked goals, step by step: one of ours whose calls need each other, then the tools' own examples."""
    messages = _worked(_GOAL, _WAY, _ANSWER)
    for goal, tasks in worked_tasks(tools)[:2]:
        way = [(name, dict(example.arguments), example.result) for name, example in tasks]
        results = [example.result for _, example in tasks]
        messages += _worked(goal, way, ", and ".join(results) + "." if all(results) else "")
    return tuple(messages)


def _worked(goal: str, way: Sequence[tuple[str, Mapping[str, Any], str]], answer: str) -> list[Message]:
    done: list[tuple[str, str]] = []
    messages = []
    said = [
        json.dumps({"tool": name, "arguments": dict(given)}, ensure_ascii=False) for name, given, _ in way
    ]
    said += [json.dumps({"answer": answer}, ensure_ascii=False)] if answer else []
    for place, text in enumerate(said):
        messages += [
            Message(role="user", content=_asked(goal, done)),
            Message(role="assistant", content=text),
        ]
        if place < len(way):
            name, given, came = way[place]
            done.append((f"{name}({json.dumps(dict(given), ensure_ascii=False)})", came))
    return messages
