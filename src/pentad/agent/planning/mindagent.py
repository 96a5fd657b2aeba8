"""MindAgent: one dispatcher gives several workers their next actions, round by round, under rules."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.agent.exchange import Exchange
from pentad.agent.planning.allowance import bounded
from pentad.agent.planning.answers import AnswersPlainly, plain_answer, read_plainly
from pentad.agent.planning.base import (
    MAX_PARALLEL,
    Decided,
    Draft,
    ModelCallDraft,
    Reading,
    Thought,
    Unusable,
    View,
    WantsTools,
)
from pentad.agent.planning.prompts import tool_lines, unavailable
from pentad.agent.planning.thoughts import chose, json_form, think
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.json_text import parse_json
from pentad.ranges import in_range
from pentad.types import ToolCall

_DISPATCH, _ROUND = "dispatch", "round"
_ASKS = (
    "You direct several workers. Each round give each worker at most one action, so that all of them are of "
    "use and none gets in the way of another. Set `done` when nothing is left to do. Answer in JSON."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MindAgent(AnswersPlainly):
    """Has one dispatcher give all workers an action each, does these at once, and tells what came of them.

    Tools are actions of a worker; the one in the field `worker` of its arguments. A dispatch is checked by
    rules before anything is done: known workers, one action each, arguments that fit. What
    breaks them, and what the actions came to, stands in the next question.

    Source: Gong et al. 2023, "MindAgent: Emergent Gaming Interaction". Ours checks the rules before the
    world does, and journals each round as one step of parallel calls.
    """

    workers: tuple[str, ...] = ("agent1", "agent2")
    """Names of those who act."""
    field: str = "worker"
    """The parameter of each tool that says who acts; tools without it may be used by any one worker."""
    memory: int = 4
    """Rounds that the dispatcher is told of."""
    max_repairs: int = 2
    """Times in a row that a dispatch which breaks the rules is asked for again."""
    dispatch_tokens: int = 256
    """Of one dispatch, at most."""

    name = "mindagent"

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.workers)) == len(self.workers) <= MAX_PARALLEL:
            raise ValueError(f"workers must be 1 to {MAX_PARALLEL} different names")
        in_range("memory", self.memory, least=1)
        in_range("max_repairs", self.max_repairs, least=0)
        in_range("dispatch_tokens", self.dispatch_tokens, least=1)

    def draft(self, view: View) -> Draft:
        """The dispatch, its actions, and the answer once nothing is left to do."""
        state = view.state
        last = state.closed[-1] if state.closed else None
        if state.step >= state.spec.max_steps or not view.tools:
            return self._draft_answer(view)
        if last is not None and last.label == _DISPATCH and last.outcome == "thought":
            calls = self._calls(view, last)
            return Decided(purpose="act", calls=calls, label=_ROUND) if calls else self._draft_answer(view)
        refused = self._refused(state)
        rounds_left = state.spec.max_steps - state.step >= 2
        over = (last is not None and last.purpose == "answer") or len(refused) > self.max_repairs
        if over or not rounds_left or not bounded(state, self.dispatch_tokens):
            return self._draft_answer(view)
        return self._draft_dispatch(view, refused)

    def read(self, view: View, answer: Exchange) -> Reading:
        """A dispatch that keeps the rules is a thought, its actions are calls, all at once."""
        if answer.label == _DISPATCH:
            return self._read_dispatch(view, answer)
        if answer.label == _ROUND:
            return WantsTools(calls=answer.calls)
        return read_plainly(answer)

    def _refused(self, state: RunState) -> list[str]:
        """What was wrong with each dispatch since the last one that kept the rules."""
        problems: list[str] = []
        for exchange in reversed(state.closed):
            if exchange.label != _DISPATCH or exchange.outcome != "failed":
                break
            problems.append(exchange.detail)
        return problems

    def _draft_dispatch(self, view: View, refused: Sequence[str]) -> ModelCallDraft:
        state = view.state
        rounds = [e for e in state.closed if e.label == _ROUND][-self.memory :]
        told = "\n".join(
            f"- {self._acting(call)} {call.name}({call.arguments}): {e.results[place].content}"
            for e in rounds
            for place, call in enumerate(e.calls)
            if place in e.results
        )
        parts = [
            f"Goal: {state.goal}",
            f"Workers: {', '.join(self.workers)}",
            f"What came of the last actions:\n{told}" if told else "",
            f"The last dispatch broke a rule and was not carried out: {refused[0]}" if refused else "",
        ]
        system = f"{_ASKS}\n\nActions:\n{tool_lines(view.tools)}\n\n{unavailable(view.withheld)}".strip()
        actions = [self._schema(tool) for tool in view.tools]
        items = actions[0] if len(actions) == 1 else {"anyOf": actions}
        form = json_form(
            {
                "done": {"type": "boolean"},
                "dispatch": {"type": "array", "items": items, "maxItems": len(self.workers)},
            }
        )
        text = "\n\n".join(filter(None, parts))
        return think(_DISPATCH, system, text, max_tokens=self.dispatch_tokens, form=form)

    def _schema(self, tool: Tool) -> dict[str, Any]:
        """An action of some worker; who acts stands once, beside the arguments."""
        own = {n: s for n, s in tool.parameters.get("properties", {}).items() if n != self.field}
        required = [name for name in tool.parameters.get("required", ()) if name != self.field]
        arguments = {**tool.parameters, "properties": own, "required": required}
        fields = {
            "worker": {"enum": list(self.workers)},
            "tool": {"const": tool.name},
            "arguments": arguments,
        }
        return {
            "type": "object",
            "properties": fields,
            "required": list(fields),
            "additionalProperties": False,
        }

    def _read_dispatch(self, view: View, answer: Exchange) -> Reading:
        try:
            found = parse_json(answer.text)
            done = bool(found["done"])
            given = [(str(d["worker"]), str(d["tool"]), dict(d["arguments"])) for d in found["dispatch"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            cut = " (it was cut at dispatch_tokens)" if answer.reason == "length" else ""
            return Unusable(problem=f"the dispatch is no JSON of the asked form{cut}")
        problem = self._broken(view, given) or ("" if done or given else "it gives nobody an action")
        if problem:
            return Unusable(problem=problem)
        chosen = "; ".join(f"{worker}: {tool}" for worker, tool, _ in given) or "done"
        idle = len(self.workers) - len(given)
        candidates = tuple((tool.name, None) for tool in view.tools)
        decision = chose(
            self.name, _DISPATCH, chosen, candidates=candidates, constraint=f"{idle} workers idle"
        )
        return Thought(decisions=(decision,))

    def _broken(self, view: View, given: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
        """Which rule a dispatch breaks; empty where it keeps them all."""
        offered = {tool.name: tool for tool in view.tools}
        acting: set[str] = set()
        for worker, tool, arguments in given:
            if worker not in self.workers:
                return f"there is no worker {worker!r}; known: {', '.join(self.workers)}"
            if worker in acting:
                return f"{worker} has two actions in one round"
            if tool not in offered:
                return f"there is no action {tool!r}; known: {', '.join(offered)}"
            needed = [n for n in offered[tool].parameters.get("required", ()) if n != self.field]
            missing = [name for name in needed if name not in arguments]
            if missing:
                return f"{worker}: {tool} lacks {', '.join(missing)}"
            acting.add(worker)
        return ""

    def _calls(self, view: View, dispatch: Exchange) -> tuple[ToolCall, ...]:
        found = parse_json(dispatch.text)
        offered = {tool.name: tool for tool in view.tools}
        calls = []
        for number, each in enumerate(found["dispatch"]):
            arguments = dict(each["arguments"])
            tool = offered.get(str(each["tool"]))
            if tool is not None and self.field in tool.parameters.get("properties", {}):
                arguments[self.field] = each["worker"]
            text = json.dumps(arguments, ensure_ascii=False)
            calls.append(ToolCall(id=f"s{dispatch.step}c{number}", name=str(each["tool"]), arguments=text))
        return tuple(calls)

    def _acting(self, call: ToolCall) -> str:
        return str(parse_json(call.arguments).get(self.field, ""))

    def _draft_answer(self, view: View) -> ModelCallDraft:
        return plain_answer(view.state, "Say what was reached, from the facts.")
