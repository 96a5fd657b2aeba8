"""ReAct: plan, then thought, action, observation, until the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pentad.agent.planning.base import (
    Answers,
    Draft,
    MadePlan,
    Reading,
    Refuses,
    Turn,
    Unusable,
    View,
    WantsTools,
)
from pentad.agent.planning.prompts import (
    answer_shots,
    call_shots,
    facts,
    grounded,
    plan_shots,
    question,
    tool_lines,
)
from pentad.agent.state import Exchange, RunState
from pentad.json_text import parse_json
from pentad.ranges import in_range
from pentad.types import Decision, Message, OutputFormat, ToolChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class React:
    """Interleaves reasoning and acting.

    In mode `free` the model sees the whole transcript and chooses: text, one call or several at
    once. In mode `guided`, for models of a few hundred million parameters, it first fills in a
    plan whose grammar allows only known tools, then is asked one short question per sub-goal with
    that sub-goal's tool forced and its arguments constrained, and at last for the answer. What it
    writes is its own in both; guided only narrows what it may write.

    Source: Yao et al. 2022, "ReAct". Ours plans first and calls tools by constrained decoding.
    """

    mode: Literal["free", "guided"] = "free"
    """`guided` narrows each answer to one short question, for models below a billion parameters."""
    min_plan: int = 1
    """Fewest sub-goals of a plan; 0 lets a goal be answered at once."""
    max_plan: int = 5
    """Most sub-goals of a plan; 0 plans nothing (mode `free` only)."""
    parallel: bool = True
    """Whether one turn may hold several calls (mode `free`)."""
    max_repairs: int = 2
    """Failed steps in a row after which the run is given up."""
    replans: int = 1
    """New plans after failed ones, at most."""
    show_known: bool = False
    """Whether earlier results are shown before each call (mode `guided`); tiny models copy them."""
    grounded: bool = False
    """Whether the answer must quote the results, a clause for each (mode `guided`)."""
    plan_tokens: int = 192
    """Of one plan, at most."""
    call_tokens: int = 128
    """Of one tool call, at most."""

    name = "react"

    def __post_init__(self) -> None:
        if min(self.min_plan, self.max_plan) < 0 or 0 < self.max_plan < self.min_plan:
            raise ValueError(
                f"min_plan {self.min_plan} and max_plan {self.max_plan} must be 0 or more, in order"
            )
        for name, least in (("max_repairs", 0), ("replans", 0), ("plan_tokens", 1), ("call_tokens", 1)):
            in_range(name, getattr(self, name), least=least)
        if self.mode == "guided" and self.max_plan < 1:
            raise ValueError("mode 'guided' needs a plan; set max_plan to 1 or more")

    def draft(self, view: View) -> Draft:
        """The next question: plan, act or answer."""
        state = view.state
        last_step = state.step >= state.spec.max_steps
        if not last_step and self._plans(view):
            return self._draft_plan(view)
        if self.mode == "guided":
            goal = None if last_step else _next_goal(state)
            return self._draft_answer(view) if goal is None else self._draft_call(view, *goal)
        settled = last_step or _repeats(state)
        return self._draft_answer(view) if settled and state.closed else self._draft_turn(view, settled)

    def read(self, view: View, answer: Exchange) -> Reading:
        """What the answer means, by its purpose."""
        if answer.purpose == "plan":
            return self._read_plan(view, answer)
        if answer.calls:
            return WantsTools(calls=answer.calls)
        if answer.purpose == "act" and self.mode == "guided":
            return Unusable(problem="no tool was called")
        if answer.text.strip():
            return Answers(text=answer.text.strip())
        repeated = view.state.failures > 0
        return (
            Refuses(why="the model gave no answer") if repeated else Unusable(problem="the answer is empty")
        )

    def _plans(self, view: View) -> bool:
        state = view.state
        if self.max_plan == 0 or not view.tools:
            return False
        if state.plan is None:
            return True
        made = sum(e.outcome in ("planned", "replanned") for e in state.closed)
        return state.failures == self.max_repairs and made <= self.replans

    def _draft_plan(self, view: View) -> Draft:
        state = view.state
        names = [tool.name for tool in view.tools]
        item = {
            "type": "object",
            "properties": {"task": {"type": "string"}, "tool": {"enum": names}},
            "required": ["task", "tool"],
            "additionalProperties": False,
        }
        plan = {"type": "array", "items": item, "minItems": self.min_plan, "maxItems": self.max_plan}
        schema = {
            "type": "object",
            "properties": {"plan": plan},
            "required": ["plan"],
            "additionalProperties": False,
        }
        system = _joined(
            state.spec.instructions if self.mode == "free" else "",
            "You split a goal into tasks. Each task uses one tool. Answer in JSON.",
            "Tools:\n" + tool_lines(view.tools),
        )
        shots = plan_shots(view.tools, may_be_empty=self.min_plan == 0) if self.mode == "guided" else ()
        problem = f"\nThe last plan failed: {_last_problem(state)}" if state.plan is not None else ""
        asked = Message(role="user", content=f"Goal: {state.goal}{problem}")
        return Draft(
            purpose="plan",
            system=system,
            turns=(*_history(state, self.mode), Turn(messages=(*shots, asked), pinned=True)),
            format=OutputFormat(kind="json_schema", value=schema),
            max_tokens=self.plan_tokens,
            next_hint="model",
        )

    def _draft_call(self, view: View, tool_name: str, task: str) -> Draft:
        state = view.state
        tool = next(tool for tool in view.tools if tool.name == tool_name)
        problem = f"\nThe last try failed: {_last_problem(state)}" if state.failures else ""
        known = facts(_known(state)) if self.show_known else ""
        content = _joined(f"Known so far:\n{known}" if known else "", f"{task}{problem}")
        task_turn = Message(role="user", content=content)
        return Draft(
            purpose="act",
            system=f"You call the tool {tool.name} to do the task.",
            turns=(Turn(messages=(*call_shots(tool), task_turn), pinned=True),),
            tools=(tool.spec,),
            tool_choice=ToolChoice(mode="named", name=tool.name, parallel=False),
            max_tokens=self.call_tokens,
            next_hint="tool",
        )

    def _draft_answer(self, view: View) -> Draft:
        state = view.state
        guided = self.mode == "guided"
        shots = answer_shots(view.tools) if guided else ()
        pattern = grounded(_known(state)) if guided and self.grounded else None
        asked = Message(role="user", content=question(facts(_known(state)), state.goal))
        system = _joined(state.spec.instructions, "Answer the question from the facts.")
        return Draft(
            purpose="answer",
            system=system,
            turns=(
                *_history(state, self.mode),
                Turn(messages=(*shots, asked), pinned=True),
            ),
            format=OutputFormat(kind="regex", value=pattern) if pattern else OutputFormat(),
            max_tokens=state.spec.max_tokens,
            next_hint="end",
        )

    def _draft_turn(self, view: View, settled: bool) -> Draft:
        state = view.state
        plan = "\n".join(f"{i}. {task}" for i, (_, task) in enumerate(state.plan or (), 1))
        system = _joined(state.spec.instructions, f"Plan:\n{plan}" if plan else "")
        goal = Turn(messages=(Message(role="user", content=state.goal),), pinned=True)
        choice = ToolChoice(mode="none" if settled or not view.tools else "auto", parallel=self.parallel)
        return Draft(
            purpose="answer" if settled else "act",
            system=system,
            turns=(*_history(state, self.mode), goal, *_work(state)),
            tools=() if settled else tuple(tool.spec for tool in view.tools),
            tool_choice=choice,
            max_tokens=state.spec.max_tokens,
            next_hint="end" if settled else "tool",
        )

    def _read_plan(self, view: View, answer: Exchange) -> Reading:
        names = {tool.name for tool in view.tools}
        try:
            goals = planned_goals(answer)
        except (ValueError, TypeError, KeyError, RecursionError):
            cut = " (it was cut at plan_tokens)" if answer.reason == "length" else ""
            return Unusable(problem=f"the plan is no JSON of the asked form{cut}")
        unknown = [tool for tool, _ in goals if tool not in names]
        if unknown or not self.min_plan <= len(goals) <= self.max_plan:
            return Unusable(problem=f"the plan has {len(goals)} tasks, unknown tools: {unknown}")
        decision = Decision(
            layer="agent",
            policy="react",
            subject="plan",
            chosen=", ".join(tool for tool, _ in goals),
            candidates=tuple((name, None) for name in sorted(names)),
            constraint=f"{self.min_plan} to {self.max_plan} tasks",
        )
        return MadePlan(goals=goals, decisions=(decision,))


def planned_goals(answer: Exchange) -> tuple[tuple[str, str], ...]:
    """The sub-goals in a plan's text, as (tool, task). Raises ValueError, TypeError or KeyError."""
    items: Any = parse_json(answer.text)["plan"]
    return tuple((str(item["tool"]), str(item["task"])) for item in items)


def _next_goal(state: RunState) -> tuple[str, str] | None:
    """The first sub-goal of the newest plan that no tool call has answered yet."""
    done = 0
    for exchange in state.closed:
        if exchange.outcome in ("planned", "replanned"):
            done = 0
        elif exchange.outcome == "called_tools":
            done += 1
    goals = state.plan or ()
    return goals[done] if done < len(goals) else None


def _repeats(state: RunState) -> bool:
    """Whether the last step only asked again for what it had been told: small models do, for ever."""
    if not state.closed or not state.closed[-1].calls:
        return False
    before = {
        (e.calls[i].name, e.calls[i].arguments)
        for e in state.closed[:-1]
        for i, result in e.results.items()
        if result.status == "ok"
    }
    return all((c.name, c.arguments) in before for c in state.closed[-1].calls)


def _known(state: RunState) -> list[str]:
    """What the tools have said so far, in order."""
    said = [
        result.content
        for exchange in state.closed
        for _, result in sorted(exchange.results.items())
        if result.status in ("ok", "unknown")
    ]
    return list(dict.fromkeys(said))


def _last_problem(state: RunState) -> str:
    last = state.closed[-1] if state.closed else None
    if last is None:
        return ""
    told = [r.content for _, r in sorted(last.results.items()) if r.status != "ok"]
    return " ".join([*told, last.detail]).strip()[:300]


def _history(state: RunState, mode: str) -> tuple[Turn, ...]:
    """Earlier conversation, a user message and its answers per turn. Small models get none of it."""
    if mode == "guided":
        return ()
    groups: list[list[Message]] = []
    for message in state.history:
        if message.role == "user" or not groups:
            groups.append([])
        groups[-1].append(message)
    return tuple(Turn(messages=tuple(group)) for group in groups)


def _work(state: RunState) -> Sequence[Turn]:
    """This run's steps as chat turns: the assistant's calls and each result, matched by id."""
    turns = []
    for exchange in state.closed:
        if exchange.purpose == "plan":
            continue
        messages = [Message(role="assistant", content=exchange.text, tool_calls=exchange.calls)]
        for index, result in sorted(exchange.results.items()):
            call = exchange.calls[index]
            messages.append(
                Message(role="tool", content=result.content, name=call.name, tool_call_id=call.id)
            )
        if not exchange.calls:
            messages.append(
                Message(role="user", content=f"That was of no use: {exchange.detail}. Try again.")
            )
        turns.append(Turn(messages=tuple(messages)))
    return turns


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
