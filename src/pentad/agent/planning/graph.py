"""PlanGraph: a plan whose sub-goals say which earlier ones they wait for; the others run at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

from pentad.agent.exchange import Exchange
from pentad.agent.planning.base import (
    MAX_PARALLEL,
    Draft,
    MadePlan,
    ModelCallDraft,
    Needs,
    ParallelDraft,
    Reading,
    Unusable,
    View,
    in_sequence,
    ready,
)
from pentad.agent.planning.plan import planned_goals
from pentad.agent.planning.react import React
from pentad.json_text import parse_json
from pentad.types import Message

_TOLD = "Each task lists in `after` the numbers of the tasks before it whose results it needs; [] for none."


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanGraph(React):
    """Plans a graph of sub-goals and works at once on those that wait for no other.

    As `react` in mode `guided`, but a task says in its plan which earlier ones it needs. Tasks whose
    needs are met are asked about in one step, each by a model call of its own, and their tools run
    together; a task that needs others is shown what those found out.

    Source: survey III-B, parallel processing of sub-goals; Kim et al. 2023, "An LLM Compiler for
    Parallel Function Calling", section 3. Ours asks for the arguments when a task begins, not in the plan.
    """

    mode: Literal["free", "guided"] = "guided"
    """Only `guided`: the plan decides what is done."""

    name = "graph"

    def __post_init__(self) -> None:
        React.__post_init__(self)
        if self.mode != "guided":
            raise ValueError("mode must be 'guided'; planner react has mode 'free'")

    def draft(self, view: View) -> Draft:
        """The plan, then all tasks that may begin, then the answer."""
        state = view.state
        if state.plan is None or state.step >= state.spec.max_steps or self._plans(view):
            return React.draft(self, view)
        calls = tuple(self._draft_task(view, place) for place in self._ready(view))
        if not calls:
            return self._draft_answer(view)
        return calls[0] if len(calls) == 1 else ParallelDraft(calls=calls)

    def _ready(self, view: View) -> tuple[int, ...]:
        """Places of the tasks that may begin now, in the plan's order."""
        offered = {tool.name for tool in view.tools}
        goals = self._goals(view)
        over = [i for i, goal in enumerate(goals) if goal.status != "open" or goal.tool not in offered]
        return ready(_needs(view), over)[:MAX_PARALLEL]

    def _draft_task(self, view: View, place: int) -> ModelCallDraft:
        shows = self.show_known or bool(_needs(view)[place])
        tool, task = (view.state.plan or ())[place]
        return replace(replace(self, show_known=shows)._draft_call(view, tool, task), goal=place)

    def _next_goal(self, view: View) -> tuple[str, str] | None:
        """The task that the answer in view serves, else the first that may begin."""
        current, plan = view.state.current, view.state.plan or ()
        if current is not None and current.goal is not None:
            return plan[current.goal]
        return next((plan[place] for place in self._ready(view)), None)

    def _draft_plan(self, view: View) -> ModelCallDraft:
        draft = React._draft_plan(self, view)
        schema: Any = json.loads(json.dumps(draft.format.value))
        item = schema["properties"]["plan"]["items"]
        earlier = {"type": "integer", "minimum": 1, "maximum": max(1, self.max_plan - 1)}
        item["properties"]["after"] = {"type": "array", "items": earlier, "maxItems": self.max_plan}
        item["required"] = [*item["required"], "after"]
        turns = tuple(replace(turn, messages=tuple(map(_with_after, turn.messages))) for turn in draft.turns)
        form = replace(draft.format, value=schema)
        return replace(draft, system=f"{draft.system}\n\n{_TOLD}", turns=turns, format=form)

    def _read_plan(self, view: View, answer: Exchange) -> Reading:
        made = React._read_plan(self, view, answer)
        if not isinstance(made, MadePlan):
            return made
        goals = planned_goals(answer)
        try:
            after = [[int(n) - 1 for n in item["after"]] for item in parse_json(answer.text)["plan"]]
        except (KeyError, TypeError, ValueError):
            return Unusable(problem="a task of the plan has no list `after`")
        for place, needed in enumerate(after):
            if any(not 0 <= other < place for other in needed):
                return Unusable(problem=f"task {place + 1} is to wait for one that is not before it")
        places = {goal: place for place, goal in enumerate(made.goals)}
        needs: list[tuple[int, ...]] = []
        for place, goal in enumerate(made.goals):
            waits = {places.get(goals[n], place) for n in after[goals.index(goal)]}
            needs.append(tuple(sorted(other for other in waits if other < place)))
        return replace(made, needs=tuple(needs))


def _needs(view: View) -> Needs:
    state = view.state
    return state.plan_needs or in_sequence(len(state.plan or ()))


def _with_after(message: Message) -> Message:
    """A worked plan with the field that plans have here: its tasks need nothing of each other."""
    if message.role != "assistant" or not message.content.startswith('{"plan":'):
        return message
    plan = [{**item, "after": []} for item in parse_json(message.content)["plan"]]
    text = json.dumps({"plan": plan}, separators=(",", ":"), ensure_ascii=False)
    return replace(message, content=text)
