"""ReverseChain: the last call first, then those whose results it is missing, back to what the goal says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pentad.agent.exchange import Exchange
from pentad.agent.planning import progress
from pentad.agent.planning.answers import AnswersPlainly, answer_from_calls, read_plainly
from pentad.agent.planning.base import (
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
from pentad.agent.planning.call_tree import FROM, CallNode, source_of
from pentad.agent.planning.prompts import unavailable
from pentad.agent.planning.thoughts import chose, labelled, lost, think
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.json_text import parse_json
from pentad.ranges import in_range
from pentad.types import Message, OutputFormat

_FINAL, _FILL, _CALLS = "final call", "fill", "calls"
_STEPS_AFTER = 2
"""Of a run, once the tree is whole: the calls and the answer."""
_CHOOSES = (
    "You choose the tool whose result is what the goal asks for in the end. It may need results of other "
    "tools first; those are chosen later. Give its name."
)
_FILLS = (
    "You fill in the arguments of one tool call, in JSON. Take each value from the goal, as it is written "
    'there. Where the goal does not say the value, give {"from": TOOL} with the tool whose result it is.'
)
_ANSWERS = "Answer the question in a sentence from the results; the last one is what was asked for."
_CHOICES = (
    ("Which floor is the office of Ann's boss on?", "floor_of"),
    ("When was the school opened that Ben's sister goes to?", "opening_of"),
)
_SHOTS = (
    ("Which floor is the office of Ann's boss on?", "floor_of(office)", '{"office": {"from": "office_of"}}'),
    (
        "Which floor is the office of Ann's boss on?",
        "office_of(person), whose result is the office of floor_of",
        '{"person": {"from": "boss_of"}}',
    ),
    (
        "Which floor is the office of Ann's boss on?",
        "boss_of(person), whose result is the person of office_of",
        '{"person": "Ann"}',
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseChain(AnswersPlainly):
    """Chooses the final call, fills in its arguments, and goes back to calls that give the missing ones.

    One question chooses the tool that gives what the goal asks for; one per call fills in its arguments
    with values of the goal, or with the tool whose result is the value, whose arguments are asked for in
    turn. Then all calls are made, each as soon as what it needs is there, without asking anyone, and the
    answer is made of their results.

    Source: Zhang et al. 2023, "Reverse Chain: A Generic-Rule for LLMs to Master Multi-API Planning",
    section 3. Ours asks for all arguments of a call at once, binds them by the tool's schema, and asks
    again where a value stands nowhere in the goal.
    """

    depth: int = 4
    """Calls on the longest way from the goal to the final call."""
    grounded: bool = True
    """Whether a value that stands nowhere in the goal is asked for again, once."""
    fill_tokens: int = 128
    """Of the arguments of one call, at most."""
    max_repairs: int = 1
    """Times that an answer of no use is asked for again."""

    name = "reverse-chain"

    def __post_init__(self) -> None:
        in_range("depth", self.depth, least=1, most=8)
        in_range("fill_tokens", self.fill_tokens, least=1)
        in_range("max_repairs", self.max_repairs, least=0)

    def draft(self, view: View) -> Draft:
        """The final tool, the arguments of each call from there back, the calls, the answer."""
        state = view.state
        if any(e.label == _CALLS for e in state.closed) or self._stuck(state) or not view.tools:
            return answer_from_calls(state, _ANSWERS)
        tree = self._tree(state)
        if tree is not None and not tree.unfilled and state.step < state.spec.max_steps:
            return Decided(purpose="act", calls=tree.plan(f"s{state.step}c").calls, label=_CALLS)
        if state.step + _STEPS_AFTER > state.spec.max_steps:
            return answer_from_calls(state, _ANSWERS)
        return self._draft_final(view) if tree is None else self._draft_fill(view, tree)

    def read(self, view: View, answer: Exchange) -> Reading:
        """The choice and the arguments are thoughts; of them the calls are made."""
        if answer.label == _FINAL:
            return self._read_final(view, answer)
        if answer.label == _FILL:
            return self._read_fill(view, answer)
        if answer.label == _CALLS:
            tree = self._tree(view.state)
            return WantsTools(calls=answer.calls, needs=tree.plan("").needs if tree else None)
        return read_plainly(answer)

    def _stuck(self, state: RunState) -> bool:
        answering = bool(state.closed) and state.closed[-1].purpose == "answer"
        return answering or max(lost(state, _FINAL), lost(state, _FILL)) > self.max_repairs

    def _tree(self, state: RunState) -> CallNode | None:
        """The calls as far as they are known; None before the final one is chosen."""
        chosen = labelled(state, _FINAL)
        if not chosen:
            return None
        root = CallNode(tool=chosen[-1].text.strip())
        for exchange in labelled(state, _FILL):
            root.unfilled[0].fill(parse_json(exchange.text))
        return root

    def _draft_final(self, view: View) -> ModelCallDraft:
        draft = think(
            _FINAL,
            self._system(view, _CHOOSES),
            _final(view.state.goal),
            max_tokens=self.fill_tokens,
            form=OutputFormat(kind="choice", value=[tool.name for tool in view.tools]),
        )
        return replace(draft, turns=(_shown((_final(goal), said) for goal, said in _CHOICES), *draft.turns))

    def _draft_fill(self, view: View, tree: CallNode) -> ModelCallDraft:
        state, node = view.state, tree.unfilled[0]
        tool = next(tool for tool in view.tools if tool.name == node.tool)
        shots = _shown((f"Goal: {goal}\nCall: {asked}", said) for goal, asked, said in _SHOTS)
        problem = progress.last_problem(state) if lost(state, _FILL) else ""
        told = f"\nThe last try was of no use: {problem}" if problem else ""
        draft = think(
            _FILL,
            self._system(view, _FILLS),
            f"Goal: {state.goal}\nCall: {_described(tool, node)}{told}",
            max_tokens=self.fill_tokens,
            form=OutputFormat(kind="json_schema", value=self._schema(view, tree, node, tool)),
        )
        return replace(draft, turns=(shots, *draft.turns))

    def _system(self, view: View, told: str) -> str:
        parts = [
            view.state.spec.instructions,
            told,
            "Tools:\n" + signatures(view.tools),
            unavailable(view.withheld),
        ]
        return "\n\n".join(filter(None, parts))

    def _schema(self, view: View, tree: CallNode, node: CallNode, tool: Tool) -> Mapping[str, Any]:
        """The tool's schema, where each value may also be the result of a tool that does not lead here."""
        sources = self._sources(view, tree, node)
        parameters = tool.parameters
        if not sources or "$defs" in parameters or "definitions" in parameters:
            return parameters
        named = {
            "type": "object",
            "properties": {FROM: {"enum": sources}},
            "required": [FROM],
            "additionalProperties": False,
        }
        properties = {n: {"anyOf": [value, named]} for n, value in parameters.get("properties", {}).items()}
        return {**parameters, "properties": properties}

    def _sources(self, view: View, tree: CallNode, node: CallNode) -> list[str]:
        """Tools whose results may be arguments of the node; none where depth or steps do not allow more."""
        state = view.state
        steps = state.spec.max_steps - state.step - _STEPS_AFTER - len(tree.unfilled) + 1
        if len(node.above) + 1 >= self.depth or steps < 1:
            return []
        return [tool.name for tool in view.tools if tool.name not in (*node.above, node.tool)]

    def _read_final(self, view: View, answer: Exchange) -> Reading:
        names = [tool.name for tool in view.tools]
        chosen = answer.text.strip()
        if chosen not in names:
            return Unusable(problem=f"{chosen[:80]!r} is none of the tools")
        candidates = tuple((name, None) for name in names)
        return Thought(decisions=(chose(self.name, _FINAL, chosen, candidates=candidates),))

    def _read_fill(self, view: View, answer: Exchange) -> Reading:
        tree = self._tree(view.state)
        if tree is None or not tree.unfilled:
            return Unusable(problem="there is no call to fill in")
        node = tree.unfilled[0]
        allowed = self._sources(view, tree, node)
        try:
            arguments = dict(parse_json(answer.text))
        except (ValueError, TypeError, RecursionError):
            cut = " (it was cut at fill_tokens)" if answer.reason == "length" else ""
            return Unusable(problem=f"the arguments are no JSON object{cut}")
        made = {name: source_of(value) for name, value in arguments.items()}
        wrong = [source for source in made.values() if source is not None and source not in allowed]
        if wrong:
            return Unusable(problem=f"{wrong[0]!r} cannot give a value here")
        if self.grounded and allowed and not lost(view.state, _FILL):
            invented = [v for n, v in arguments.items() if made[n] is None and _invented(v, view.state.goal)]
            if invented:
                value = json.dumps(invented[0], ensure_ascii=False)
                return Unusable(problem=f'{value} is not in the goal; give {{"from": TOOL}} for it')
        sources = ", ".join(f"{name} from {source}" for name, source in made.items() if source is not None)
        chosen = f"{node.tool}: {sources or 'all values are in the goal'}"
        bound = f"at most {self.depth} calls deep"
        candidates = tuple((name, None) for name in allowed)
        return Thought(
            decisions=(chose(self.name, "arguments", chosen, candidates=candidates, constraint=bound),)
        )


def _final(goal: str) -> str:
    return f"Goal: {goal}\nThe tool whose result is the answer:"


def _shown(shots: Iterable[tuple[str, str]]) -> MessageGroup:
    """Worked questions and answers."""
    pairs = (
        (Message(role="user", content=asked), Message(role="assistant", content=said))
        for asked, said in shots
    )
    return MessageGroup(messages=tuple(message for pair in pairs for message in pair), pinned=True)


def _described(tool: Tool, node: CallNode) -> str:
    """The call as the model is asked to fill it in."""
    names = ", ".join(tool.parameters.get("properties", {}))
    wanted = node.wanted_as
    purpose = f", whose result is the {wanted[-1]} of {wanted[-2]}" if wanted else ""
    return f"{tool.name}({names}){purpose}"


def _invented(value: Any, goal: str) -> bool:
    """Whether a text or number stands nowhere in the goal; what is neither is not looked for."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    if isinstance(value, str):
        words = re.findall(r"\w+", value.casefold())
        said = set(re.findall(r"\w+", goal.casefold()))
        return bool(words) and not all(word in said for word in words)
    numbers = {float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", goal.replace(",", ""))}
    return float(value) not in numbers
