"""Mcts: the model imagines where actions lead, and a tree search finds the way before anything is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pentad.agent.exchange import Exchange
from pentad.agent.planning.allowance import bounded
from pentad.agent.planning.base import (
    Decided,
    Draft,
    MadePlan,
    ModelCallDraft,
    Reading,
    Thought,
    Unusable,
    View,
)
from pentad.agent.planning.prompts import tool_lines, unavailable
from pentad.agent.planning.react import React
from pentad.agent.planning.thoughts import chose, json_form, labelled, lost, think
from pentad.agent.planning.tree_search import Expansion, Path, Searched, search
from pentad.agent.state import RunState
from pentad.json_text import parse_json
from pentad.ranges import in_range

_BELIEF, _PLAN = "belief", "plan"
_EXPANDS = "look "
_ASKS_BELIEF = (
    "Something about the situation is not known. List the likeliest ways in which things could be, each "
    "with its probability. Answer in JSON."
)
_ASKS_NODE = (
    "You imagine what happens. Given the goal and the actions so far, say in `state` in one sentence how "
    "things are then; in `done` whether the goal is reached; in `value` from 0 to 1 how near it is; and in "
    "`actions` what could be done next, each with a tool and a `prior` from 0 to 1 for how promising it is. "
    "Answer in JSON."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mcts(React):
    """Searches a tree of imagined actions, then does those of its most visited way.

    The model is world model and policy: one question for each node says how things would be there, how
    near the goal is and what could be done next. With `beliefs` it first lists how things could be, and
    each simulation imagines one of them, the likelier ones more often. The search ends after `simulations`
    or when the budget has left what the plan itself needs; nothing is done in the world meanwhile.

    Source: Zhao et al. 2023, "Large Language Models as Commonsense Knowledge for Large-Scale Task
    Planning" (LLM-MCTS). Ours takes the model's value of a node for a rollout, since worlds cannot be
    put back, and shares a node among beliefs.
    """

    mode: Literal["free", "guided"] = "guided"
    """Only `guided`: the plan decides what is done."""
    simulations: int = 16
    """Ways through the tree, at most; each asks the model at most once."""
    beliefs: int = 1
    """Ways in which things could be that are imagined; 1 takes them as the goal says."""
    width: int = 3
    """Actions of one node, at most."""
    depth: int = 4
    """Actions of one way, at most."""
    exploration: float = 1.0
    """Weight of priors and of what was seldom looked at, above 0."""
    node_tokens: int = 192
    """Of one node, at most."""

    name = "mcts"

    def __post_init__(self) -> None:
        React.__post_init__(self)
        for name in ("simulations", "beliefs", "width", "depth", "node_tokens"):
            in_range(name, getattr(self, name), least=1)
        in_range("exploration", self.exploration, above=0)
        if self.mode != "guided":
            raise ValueError("mode must be 'guided'; planner react has mode 'free'")

    def exhausted(self, state: RunState) -> bool:
        """Where the search looked at nothing of use, or its plan came to nothing."""
        thinking = bool(state.closed) and state.closed[-1].purpose == "think"
        return not thinking and React.exhausted(self, state)

    def draft(self, view: View) -> Draft:
        """The nodes that the search wants to look at, its plan, the plan's actions, the answer."""
        state = view.state
        if state.plan is not None or state.step >= state.spec.max_steps or not view.tools:
            return React.draft(self, view)
        # What is found must be done still: an action's call for each level.
        if not bounded(state, self.node_tokens, least=1 + self.depth):
            return Decided(purpose="plan", label=_PLAN)
        believed = any(e.label == _BELIEF for e in state.closed)
        if self.beliefs > 1 and not believed:
            return self._draft_beliefs(state)
        wanted = self._search(state).wanted
        return Decided(purpose="plan", label=_PLAN) if wanted is None else self._draft_node(view, wanted)

    def read(self, view: View, answer: Exchange) -> Reading:
        """Nodes and beliefs are thoughts, the way that was found is the plan; the rest is as `react`."""
        if answer.label == _PLAN:
            return self._made(view)
        if answer.label == _BELIEF:
            return self._read_beliefs(answer)
        if answer.purpose == "think":
            return self._read_node(view, answer)
        return React.read(self, view, answer)

    def _plans(self, view: View) -> bool:  # noqa: ARG002
        return False

    def _search(self, state: RunState) -> Searched:
        """The tree as far as nodes were looked at; one that nothing useful was said of is worth nothing."""

        def known(path: Path) -> Expansion | None:
            made = labelled(state, _label(path))
            if made:
                return _expansion(made[-1])
            given_up = lost(state, _label(path)) > self.max_repairs
            return Expansion(value=0.0, done=True) if given_up else None

        return search(known, simulations=self.simulations, exploration=self.exploration, depth=self.depth)

    def _actions(self, state: RunState, path: Path) -> list[tuple[str, str, str]]:
        """Tool, task and the state before of each action on the way to a node."""
        way = []
        for length, place in enumerate(path):
            node = labelled(state, _label(path[:length]))[-1]
            found = parse_json(node.text)
            action = found["actions"][place]
            way.append((str(action["tool"]), str(action["task"]), str(found["state"])))
        return way

    def _belief(self, state: RunState) -> str:
        """How this simulation imagines things: each belief comes as often as its probability says."""
        made = labelled(state, _BELIEF)
        if not made:
            return ""
        beliefs = _beliefs(made[-1])
        total = sum(weight for _, weight in beliefs) or 1.0
        looked = sum(e.label.startswith(_EXPANDS) and e.outcome == "thought" for e in state.closed)
        # The golden ratio spreads the draws evenly, and needs no chance that a restart would not repeat.
        at, upto = (looked * 0.6180339887) % 1.0 * total, 0.0
        for text, weight in beliefs:
            upto += weight
            if at < upto:
                return text
        return beliefs[-1][0]

    def _draft_beliefs(self, state: RunState) -> ModelCallDraft:
        item: dict[str, Any] = {
            "type": "object",
            "properties": {"state": {"type": "string", "maxLength": 160}, "probability": _SHARE},
            "required": ["state", "probability"],
            "additionalProperties": False,
        }
        form = json_form(
            {"beliefs": {"type": "array", "items": item, "minItems": 1, "maxItems": self.beliefs}}
        )
        text = f"Goal: {state.goal}"
        return think(_BELIEF, _ASKS_BELIEF, text, max_tokens=self.node_tokens, form=form)

    def _draft_node(self, view: View, path: Path) -> ModelCallDraft:
        state = view.state
        item: dict[str, Any] = {
            "type": "object",
            "properties": {
                "task": {"type": "string", "maxLength": 120},
                "tool": {"enum": [tool.name for tool in view.tools]},
                "prior": _SHARE,
            },
            "required": ["task", "tool", "prior"],
            "additionalProperties": False,
        }
        form = json_form(
            {
                "state": {"type": "string", "maxLength": 160},
                "done": {"type": "boolean"},
                "value": _SHARE,
                "actions": {"type": "array", "items": item, "maxItems": self.width},
            }
        )
        way = [
            f"{n}. {task} (with {tool})" for n, (tool, task, _) in enumerate(self._actions(state, path), 1)
        ]
        belief = self._belief(state)
        parts = [
            f"Goal: {state.goal}",
            f"Suppose that: {belief}" if belief else "",
            "Actions so far:\n" + "\n".join(way) if way else "Nothing has been done yet.",
        ]
        system = f"{_ASKS_NODE}\n\nTools:\n{tool_lines(view.tools)}\n\n{unavailable(view.withheld)}".strip()
        text = "\n\n".join(filter(None, parts))
        return think(_label(path), system, text, max_tokens=self.node_tokens, form=form)

    def _read_node(self, view: View, answer: Exchange) -> Reading:
        try:
            node = _expansion(answer)
            names = [str(action["tool"]) for action in parse_json(answer.text)["actions"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            cut = " (it was cut at node_tokens)" if answer.reason == "length" else ""
            return Unusable(problem=f"it is no JSON of the asked form{cut}")
        unknown = sorted(set(names) - {tool.name for tool in view.tools})
        if unknown:
            return Unusable(problem=f"unknown tools: {unknown}")
        bound = "the goal is reached" if node.done else f"at most {self.width} actions"
        decision = chose(
            self.name, answer.label, f"value {node.value:.2f}", candidates=node.actions, constraint=bound
        )
        return Thought(decisions=(decision,))

    def _read_beliefs(self, answer: Exchange) -> Reading:
        try:
            beliefs = _beliefs(answer)
        except (ValueError, TypeError, KeyError, RecursionError):
            return Unusable(problem="the beliefs are no JSON of the asked form")
        if not beliefs:
            return Unusable(problem="there is no belief")
        return Thought(decisions=(chose(self.name, _BELIEF, beliefs[0][0], candidates=tuple(beliefs)),))

    def _made(self, view: View) -> MadePlan:
        state = view.state
        searched = self._search(state)
        goals = tuple((tool, task) for tool, task, _ in self._actions(state, searched.best()))
        first = searched.root
        names = first.expansion.actions if first.expansion is not None else ()
        candidates = tuple(
            (name, child.mean) for (name, _), child in zip(names, first.children, strict=False)
        )
        bound = f"{searched.simulations} of {self.simulations} simulations"
        chosen = "; ".join(task for _, task in goals) or "nothing was found"
        decision = chose(self.name, _PLAN, chosen, candidates=candidates, constraint=bound)
        return MadePlan(goals=goals, decisions=(decision,))


_SHARE = {"type": "number", "minimum": 0, "maximum": 1}


def _label(path: Path) -> str:
    return f"{_EXPANDS}{'.'.join(map(str, path)) or 'root'}"


def _expansion(answer: Exchange) -> Expansion:
    found = parse_json(answer.text)
    actions = tuple((str(a["task"]), float(a["prior"])) for a in found["actions"])
    value = min(1.0, max(0.0, float(found["value"])))
    return Expansion(value=1.0 if found["done"] else value, actions=actions, done=bool(found["done"]))


def _beliefs(answer: Exchange) -> list[tuple[str, float]]:
    return [(str(b["state"]), max(0.0, float(b["probability"]))) for b in parse_json(answer.text)["beliefs"]]
