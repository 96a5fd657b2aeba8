"""Dynamic: the plan is made anew when an observation contradicts it, and cut when the budget gets short."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

from pentad.agent.exchange import Exchange
from pentad.agent.planning import conditions, progress
from pentad.agent.planning.allowance import bounded, calls_left
from pentad.agent.planning.base import (
    Decided,
    Draft,
    MadePlan,
    MessageGroup,
    ModelCallDraft,
    Reading,
    Unusable,
    View,
)
from pentad.agent.planning.prompts import facts
from pentad.agent.planning.react import React
from pentad.agent.planning.thoughts import chose
from pentad.agent.state import RunState
from pentad.json_text import parse_json
from pentad.ranges import in_range
from pentad.types import Message

_WEIGHT = "weight"
_REVISE, _CUT = "revise", "cut"
_TOLD = (
    f"{conditions.TOLD} In `weight` say how much the goal depends on the task: 3 it cannot be reached "
    "without, 2 it is worse without, 1 it is nice to have."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamic(React):
    """Works through a plan as `react` guided, and changes it when what comes back contradicts it.

    A task that fails, or whose result does not show what the plan expected, is tried `patience` times
    more; then the model lays out anew what is left: in another order, with other tools, or without tasks
    that are of no use now. Where steps or budget no longer suffice for all tasks, those that the goal
    depends on least are cancelled without asking. What was done stays done.

    Source: survey III-B, dynamic adjustment. Ours bounds the changes, and checks expectations without
    a model.
    """

    mode: Literal["free", "guided"] = "guided"
    """Only `guided`: the plan decides what is done."""
    replans: int = 3
    """Changes of the plan, at most."""
    patience: int = 0
    """Times that a task which failed is tried again before the plan is changed."""
    plan_tokens: int = 320
    """Of one plan, at most."""

    name = "dynamic"

    def __post_init__(self) -> None:
        React.__post_init__(self)
        in_range("patience", self.patience, least=0)
        if self.mode != "guided":
            raise ValueError("mode must be 'guided'; planner react has mode 'free'")

    def exhausted(self, state: RunState) -> bool:
        """Only where there is no plan at all; a change of the plan that fails leaves the plan as it is."""
        return state.plan is None and React.exhausted(self, state)

    def draft(self, view: View) -> Draft:
        """The plan, its tasks, changes of it, then the answer."""
        state = view.state
        if state.plan is None or state.step >= state.spec.max_steps:
            return React.draft(self, view)
        contradicted = self._contradicted(view)
        if contradicted is not None and bounded(state, self.plan_tokens, least=2):
            return self._draft_revision(view, contradicted)
        cut = self._cut(view)
        if cut is not None:
            return cut
        goals, offered = self._goals(view), {tool.name for tool in view.tools}
        place = next((i for i, g in enumerate(goals) if g.status == "open" and g.tool in offered), None)
        if place is None:
            return self._draft_answer(view)
        goal = goals[place]
        return replace(self._draft_call(view, goal.tool, goal.task, goal.problem), goal=place)

    def read(self, view: View, answer: Exchange) -> Reading:
        """As `react`; a plan also says what is expected, and a cut names the tasks that stay."""
        if answer.label == _CUT:
            return self._read_cut(view, answer)
        return React.read(self, view, answer)

    def _goals(self, view: View) -> tuple[progress.SubGoal, ...]:
        shows = [str(item[conditions.SHOWS]) for item in self._items(view.state)]
        return progress.in_turn(view.state, self.max_repairs + 1, conditions.conditions(shows, view.tools))

    def _items(self, state: RunState) -> list[dict[str, Any]]:
        """The tasks of the newest plan as the model wrote them, without repetitions."""
        made = [e for e in state.closed if e.outcome in ("planned", "replanned")]
        if not made:
            return []
        items: list[dict[str, Any]] = parse_json(made[-1].text)["plan"]
        by_goal = {(str(i["tool"]), str(i["task"])): i for i in reversed(items)}
        return [by_goal[goal] for goal in state.plan or () if goal in by_goal]

    def _contradicted(self, view: View) -> progress.SubGoal | None:
        """The task that the plan is to be changed for, if changes are left."""
        state = view.state
        last = state.closed[-1]
        changes = sum(e.label == _REVISE for e in state.closed)
        if last.purpose != "act" or changes >= self.replans:
            return None
        tried = sum(e.purpose == "act" and e.goal == last.goal for e in self._since_plan(state))
        goal = self._goals(view)[last.goal or 0]
        return goal if goal.problem and (tried > self.patience or goal.status == "failed") else None

    def _since_plan(self, state: RunState) -> tuple[Exchange, ...]:
        made = [n for n, e in enumerate(state.closed) if e.outcome in ("planned", "replanned")]
        return state.closed[made[-1] + 1 :]

    def _cut(self, view: View) -> Decided | None:
        """The plan without the tasks of least weight, where not all that is open can be afforded."""
        left = calls_left(view.state, self.call_tokens)
        goals, items = self._goals(view), self._items(view.state)
        still = [n for n, goal in enumerate(goals) if goal.status == "open"]
        if left is None or len(still) <= max(0, left) or not still:
            return None
        # The cut takes a step itself.
        kept = max(0, min(left, view.state.spec.max_steps - view.state.step - 1))
        heaviest = sorted(still, key=lambda n: (-int(items[n][_WEIGHT]), n))[:kept]
        text = json.dumps({"plan": [items[n] for n in sorted(heaviest)]}, ensure_ascii=False)
        return Decided(purpose="plan", text=text, label=_CUT)

    def _read_cut(self, view: View, answer: Exchange) -> Reading:
        goals = tuple((str(i["tool"]), str(i["task"])) for i in parse_json(answer.text)["plan"])
        gone = [g.task for g in self._goals(view) if g.status == "open" and (g.tool, g.task) not in goals]
        candidates = tuple((str(i["task"]), float(i[_WEIGHT])) for i in self._items(view.state))
        left = calls_left(view.state, self.call_tokens)
        bound = f"{max(0, left or 0)} calls are left beside the answer"
        decision = chose(self.name, "cancel", "; ".join(gone), candidates=candidates, constraint=bound)
        return MadePlan(goals=goals, decisions=(decision,))

    def _draft_plan(self, view: View) -> ModelCallDraft:
        draft = React._draft_plan(self, view)
        form: Any = json.loads(json.dumps(draft.format.value))
        item = conditions.with_shows(form["properties"]["plan"]["items"])
        item["properties"][_WEIGHT] = {"type": "integer", "minimum": 1, "maximum": 3}
        item["required"] = [*item["required"], _WEIGHT]
        form["properties"]["plan"]["items"] = item
        turns = tuple(replace(turn, messages=tuple(map(_whole, turn.messages))) for turn in draft.turns)
        return replace(
            draft,
            system=f"{draft.system}\n\n{_TOLD}",
            turns=turns,
            format=replace(draft.format, value=form),
        )

    def _draft_revision(self, view: View, contradicted: progress.SubGoal) -> ModelCallDraft:
        draft = self._draft_plan(view)
        goals = self._goals(view)
        known = progress.known(view.state)
        still = [f"- {g.task} (with {g.tool})" for g in goals if g.status == "open" and g != contradicted]
        parts = [
            f"Goal: {view.state.goal}",
            f"Known so far; plan none of it again:\n{facts(known)}" if known else "",
            f"This went against the plan: {contradicted.task} (with {contradicted.tool}): "
            f"{contradicted.problem}",
            "Still planned:\n" + "\n".join(still) if still else "",
            "Plan what is left to do now: with another tool or way for what failed, and without what is of "
            "no use.",
        ]
        asked = Message(role="user", content="\n\n".join(filter(None, parts)))
        turns = (*draft.turns[:-1], MessageGroup(messages=(asked,), pinned=True, noted=True))
        return replace(draft, turns=turns, label=_REVISE)

    def _read_plan(self, view: View, answer: Exchange) -> Reading:
        made = React._read_plan(self, view, answer)
        if not isinstance(made, MadePlan):
            return made
        try:
            items = [
                (i["tool"], str(i[conditions.SHOWS]), int(i[_WEIGHT]))
                for i in parse_json(answer.text)["plan"]
            ]
        except (KeyError, TypeError, ValueError):
            return Unusable(problem="a task of the plan has no `shows` and `weight`")
        if answer.label != _REVISE:
            return made
        before = self._goals(view)
        failed = {(g.tool, g.task) for g in before if g.problem}
        again = [task for tool, task in made.goals if (tool, task) in failed]
        if again:
            return Unusable(problem=f"it plans again what failed: {'; '.join(again)}")
        kept = {goal for goal in made.goals if goal in {(g.tool, g.task) for g in before}}
        gone = [g.task for g in before if g.status == "open" and (g.tool, g.task) not in kept]
        fresh = [f"{task} (with {tool})" for tool, task in made.goals if (tool, task) not in kept]
        decision = chose(
            self.name,
            "replan",
            f"adds {'; '.join(fresh) or 'nothing'}, cancels {'; '.join(gone) or 'nothing'}",
            candidates=tuple((tool, float(weight)) for tool, _, weight in items),
            constraint=f"change {sum(e.label == _REVISE for e in view.state.closed) + 1} of {self.replans}",
        )
        return replace(made, decisions=(decision,))


def _whole(message: Message) -> Message:
    """A worked plan with the fields that plans have here."""
    if message.role != "assistant" or not message.content.startswith('{"plan":'):
        return message
    plan = [{**item, conditions.SHOWS: "", _WEIGHT: 3} for item in parse_json(message.content)["plan"]]
    text = json.dumps({"plan": plan}, separators=(",", ":"), ensure_ascii=False)
    return replace(message, content=text)
