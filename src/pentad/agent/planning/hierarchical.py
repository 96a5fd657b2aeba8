"""Hierarchical: the goal becomes a tree, level by level; then its leaves are done in order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from pentad.agent.exchange import Exchange
from pentad.agent.planning import conditions, progress
from pentad.agent.planning.base import (
    MAX_PARALLEL,
    Decided,
    Draft,
    MadePlan,
    ModelCallDraft,
    ParallelDraft,
    Reading,
    Thought,
    Unusable,
    View,
)
from pentad.agent.planning.goal_tree import Node, goal_tree, label_of, path_of, sub_goals, to_expand
from pentad.agent.planning.prompts import tool_lines, unavailable
from pentad.agent.planning.react import React
from pentad.agent.planning.thoughts import chose, json_form, lost, think
from pentad.agent.state import RunState
from pentad.ranges import in_range

_LEAVES = "leaves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchical(React):
    """Expands the goal into a tree of sub-goals from the top down, then does its leaves in order.

    A node is expanded when its parent is fixed; all of one level are asked about at once. A leaf has one
    tool and a post-condition: what the tool's result must show. Where it does not, the leaf is tried
    again, unless that would repeat an effect.

    Source: survey III-B, hierarchical planning (plan, then write). Ours checks post-conditions without
    a model.
    """

    mode: Literal["free", "guided"] = "guided"
    """Only `guided`: the tree decides what is done."""
    depth: int = 2
    """Levels below the goal, at most; those of the last are leaves."""
    width: int = 4
    """Sub-goals of one node, at most."""

    name = "hierarchical"

    def __post_init__(self) -> None:
        React.__post_init__(self)
        in_range("depth", self.depth, least=1, most=4)
        in_range("width", self.width, least=1, most=MAX_PARALLEL)
        if self.mode != "guided":
            raise ValueError("mode must be 'guided'; planner react has mode 'free'")

    def exhausted(self, state: RunState) -> bool:
        """Also where a node could not be expanded."""
        last = state.closed[-1] if state.closed else None
        if last is not None and last.purpose == "think":
            return lost(state, last.label) > self.max_repairs
        return React.exhausted(self, state)

    def draft(self, view: View) -> Draft:
        """The tree, its leaves as the plan, each leaf, then the answer."""
        state = view.state
        if state.step >= state.spec.max_steps or not view.tools:
            return self._draft_answer(view)
        if state.plan is None:
            calls = tuple(self._draft_node(view, node) for node in to_expand(goal_tree(state))[:MAX_PARALLEL])
            if not calls:
                return Decided(purpose="plan", label=_LEAVES)
            return calls[0] if len(calls) == 1 else ParallelDraft(calls=calls)
        offered = {tool.name for tool in view.tools}
        goals = self._goals(view)
        place = next((i for i, g in enumerate(goals) if g.status == "open" and g.tool in offered), None)
        if place is None:
            return self._draft_answer(view)
        goal = goals[place]
        return replace(self._draft_call(view, goal.tool, goal.task, goal.problem), goal=place)

    def read(self, view: View, answer: Exchange) -> Reading:
        """Expansions of nodes, the tree's leaves as the plan, and the rest as `react`."""
        if answer.label == _LEAVES:
            leaves = self._leaves(view.state)
            chosen = ", ".join(node.path for node in leaves)
            decision = chose(self.name, "plan", chosen, constraint=f"at most {self.depth} levels")
            return MadePlan(goals=tuple((n.tool, n.task) for n in leaves), decisions=(decision,))
        if answer.purpose == "think":
            return self._read_node(view, answer)
        return React.read(self, view, answer)

    def _goals(self, view: View) -> tuple[progress.SubGoal, ...]:
        shows = [node.shows for node in self._leaves(view.state)]
        return progress.in_turn(view.state, self.max_repairs + 1, conditions.conditions(shows, view.tools))

    def _leaves(self, state: RunState) -> tuple[Node, ...]:
        return tuple(node for node in goal_tree(state).walk() if node.leaf)

    def _draft_node(self, view: View, node: Node) -> ModelCallDraft:
        last = node.depth + 1 >= self.depth
        names = [tool.name for tool in view.tools]
        task: dict[str, Any] = {
            "type": "object",
            "properties": {"task": {"type": "string"}, "tool": {"enum": names if last else [*names, ""]}},
            "required": ["task", "tool"],
            "additionalProperties": False,
        }
        items = {
            "type": "array",
            "items": conditions.with_shows(task),
            "minItems": 1,
            "maxItems": self.width,
        }
        tool = (
            "with one tool" if last else "with one tool, or with an empty tool if it needs steps of its own"
        )
        system = (
            f"You split a goal into at most {self.width} smaller tasks in order, each {tool}. "
            f"{conditions.TOLD} Answer in JSON.\n\nTools:\n{tool_lines(view.tools)}\n\n"
            f"{unavailable(view.withheld)}"
        ).strip()
        above = "" if node.depth == 0 else f"\nThe part to split now: {node.task}"
        problem = self._lost(view.state, node)
        text = f"Goal: {view.state.goal}{above}{problem}"
        form = json_form({"sub_goals": items})
        return think(label_of(node.path), system, text, max_tokens=self.plan_tokens, form=form)

    def _lost(self, state: RunState, node: Node) -> str:
        failed = [e for e in state.closed if e.label == label_of(node.path) and e.outcome == "failed"]
        return f"\nThe last try was of no use: {failed[-1].detail}" if failed else ""

    def _read_node(self, view: View, answer: Exchange) -> Reading:
        path = path_of(answer.label)
        names = {tool.name for tool in view.tools}
        try:
            made = sub_goals(answer.text, path)
        except (ValueError, TypeError, KeyError, RecursionError):
            cut = " (it was cut at plan_tokens)" if answer.reason == "length" else ""
            return Unusable(problem=f"the tasks are no JSON of the asked form{cut}")
        unknown = [node.tool for node in made if node.leaf and node.tool not in names]
        deep = [node.task for node in made if not node.leaf and node.depth >= self.depth]
        if unknown or deep or not 1 <= len(made) <= self.width:
            return Unusable(problem=f"{len(made)} tasks, unknown tools: {unknown}, without a tool: {deep}")
        chosen = "; ".join(f"{node.path} {node.tool or 'expand'}" for node in made)
        bound = f"at most {self.width} sub-goals, {self.depth} levels"
        return Thought(decisions=(chose(self.name, f"expand {path}", chosen, constraint=bound),))
