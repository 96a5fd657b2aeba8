"""ReAct: plan, then thought, action, observation, until the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pentad.agent.exchange import Exchange
from pentad.agent.planning import progress
from pentad.agent.planning.base import (
    MAX_SAMPLES,
    Answers,
    Draft,
    MadePlan,
    MessageGroup,
    ModelCallDraft,
    Reading,
    Refuses,
    Selection,
    Unusable,
    View,
    WantsTools,
    majority,
)
from pentad.agent.planning.intent import asks_for_change, parts
from pentad.agent.planning.plan import own_goals, plan_schema, planned_goals
from pentad.agent.planning.prompts import (
    answer_shots,
    call_shots,
    facts,
    grounded,
    plan_shots,
    question,
    tool_lines,
    unavailable,
)
from pentad.agent.planning.turns import conversation
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.agent.values import derived
from pentad.ranges import in_range
from pentad.types import Decision, Message, OutputFormat, ToolChoice

_ONLY_ASKS = "it may change something, and the goal only asks"


@dataclass(frozen=True, slots=True, kw_only=True)
class React:
    """Interleaves reasoning and acting.

    In mode `free` the model sees the whole transcript and chooses: text, one call or several at
    once; when its plan is done it is asked for the answer. With `max_plan` 0 it plans nothing and
    says itself when it is done. In mode `guided`, for models of a few hundred million parameters, it
    first fills in a plan whose grammar allows only known tools, then is asked one short question per
    sub-goal with that sub-goal's tool forced and its arguments constrained, and at last for the
    answer. What it writes is its own in both; guided only narrows what it may write.

    Source: Yao et al. 2022, "ReAct". Ours plans first and calls tools by constrained decoding.
    """

    mode: Literal["free", "guided"] = "free"
    """`guided` narrows each answer to one short question, for models below a billion parameters."""
    min_plan: int = 0
    """Fewest sub-goals of a plan; 0 lets a goal be answered at once."""
    max_plan: int = 5
    """Most sub-goals of a plan; 0 plans nothing (mode `free` only)."""
    parallel: bool = True
    """Whether one turn may hold several calls (mode `free`)."""
    max_repairs: int = 2
    """Times that a failed step is tried again; then the answer is made of what is known."""
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
    answer_last: bool = True
    """Whether the last step must answer (mode `free`); else it may call tools, and the run ends with them."""
    samples: int = 1
    """Final answers drawn; the one that most agree with is taken. They differ only above temperature 0."""

    name = "react"

    def __post_init__(self) -> None:
        if min(self.min_plan, self.max_plan) < 0 or 0 < self.max_plan < self.min_plan:
            raise ValueError(
                f"min_plan {self.min_plan} and max_plan {self.max_plan} must be 0 or more, in order"
            )
        for name, least in (("max_repairs", 0), ("replans", 0), ("plan_tokens", 1), ("call_tokens", 1)):
            in_range(name, getattr(self, name), least=least)
        in_range("samples", self.samples, least=1, most=MAX_SAMPLES)
        if self.mode == "guided" and self.max_plan < 1:
            raise ValueError("mode 'guided' needs a plan; set max_plan to 1 or more")

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:
        """In mode `guided`, which must call something: tools with effects, where the goal only asks."""
        if self.mode == "free" or asks_for_change(state.goal):
            return {}
        return {tool.name: _ONLY_ASKS for tool in tools if tool.effects != "none"}

    def exhausted(self, state: RunState) -> bool:
        """Whether steps of one kind failed so often that nothing is left to try."""
        if not state.closed or progress.failures(state) <= self.max_repairs:
            return False
        match state.closed[-1].purpose:
            case "plan":
                return self.mode == "guided"
            case "act":
                return self.mode == "free" and not progress.known(state)
            case _:
                return True

    def draft(self, view: View) -> Draft:
        """The next question: plan, act or answer."""
        state = view.state
        last_step = state.step >= state.spec.max_steps
        if not last_step and self._plans(view):
            return self._draft_plan(view)
        if self.mode == "guided":
            goal = None if last_step else self._next_goal(view)
            return self._draft_answer(view) if goal is None else self._draft_call(view, *goal)
        settled = (last_step and self.answer_last) or self._settled(state)
        return self._draft_answer(view) if settled and state.closed else self._draft_turn(view, settled)

    def select(self, view: View, candidates: Sequence[Exchange]) -> Selection:  # noqa: ARG002
        """The answer that most agree with."""
        return majority(self.name, candidates)

    def read(self, view: View, answer: Exchange) -> Reading:
        """What the answer means, by its purpose."""
        if answer.purpose == "plan":
            return self._read_plan(view, answer)
        if answer.calls:
            return self._read_calls(view, answer)
        if answer.purpose == "act" and self.mode == "guided":
            return Unusable(problem="no tool was called")
        text, again = answer.text.strip(), progress.failures(view.state) > 0
        if not text and again and not progress.known(view.state):
            return Refuses(why="the model gave no answer")
        if not text:
            return Unusable(problem="the answer is empty")
        if progress.call_shaped(text, [tool.name for tool in view.tools]):
            return Unusable(problem="it is a tool call written as text, and no answer")
        missing = "" if again else self._missing(view, answer)
        return Unusable(problem=missing) if missing else Answers(text=text)

    def _missing(self, view: View, answer: Exchange) -> str:
        """What a first answer to a plan leaves undone or unsaid; asked once, for it may have its reasons."""
        state, offered = view.state, {tool.name for tool in view.tools}
        if state.plan is None:
            return ""
        undone = [g.task for g in progress.by_tool(state) if g.status == "open" and g.tool in offered]
        if answer.purpose == "act" and undone and state.closed[-1].purpose == "act":
            return f"still to be done with a tool: {'; '.join(undone)}"
        lost = progress.left_out(state, answer.text)
        return f"it leaves out: {'; '.join(lost)}" if lost else ""

    def _plans(self, view: View) -> bool:
        state = view.state
        if self.max_plan == 0 or not view.tools:
            return False
        if state.plan is None:
            return progress.failures(state) <= self.max_repairs
        made = sum(e.outcome in ("planned", "replanned") for e in state.closed)
        # Once something has been done it is not planned anew: that would do it twice.
        stuck = state.closed[-1].purpose == "act" and progress.failures(state) == self.max_repairs
        return stuck and made <= self.replans and not progress.known(state)

    def _next_goal(self, view: View) -> tuple[str, str] | None:
        offered = {tool.name for tool in view.tools}
        goals = self._goals(view)
        return next(((g.tool, g.task) for g in goals if g.status == "open" and g.tool in offered), None)

    def _goals(self, view: View) -> tuple[progress.SubGoal, ...]:
        """The sub-goals of the plan and what has come of each (mode `guided`)."""
        return progress.in_turn(view.state, self.max_repairs + 1)

    def _settled(self, state: RunState) -> bool:
        """Whether in mode `free` the answer is due: the plan is done, or nothing new comes."""
        if not state.closed or state.closed[-1].purpose == "plan":
            return False
        last = state.closed[-1]
        if last.purpose == "answer" or progress.repeats(state):
            return True
        if not progress.known(state):
            return False
        undone = any(goal.status == "open" for goal in progress.by_tool(state))
        silent = last.outcome == "failed" and not last.calls
        worked_through = bool(state.plan) or silent
        return (worked_through and not undone) or progress.failures(state) > self.max_repairs

    def _plan_shots(self, view: View) -> tuple[Message, ...]:
        return plan_shots(view.tools, may_be_empty=self.min_plan == 0)

    def _fewest(self, state: RunState) -> int:
        """Tasks of a plan at least: where it may not be empty, a small model forgets parts of the goal."""
        if self.mode == "free" or self.min_plan == 0:
            return self.min_plan
        return min(self.max_plan, max(self.min_plan, parts(state.goal)))

    def _draft_plan(self, view: View) -> ModelCallDraft:
        state = view.state
        system = _joined(
            state.spec.instructions if self.mode == "free" else "",
            "You split a goal into tasks. Each task uses one tool. Answer in JSON.",
            "Tools:\n" + tool_lines(view.tools),
            unavailable(view.withheld),
        )
        problem = progress.last_problem(state)
        told = f"\nThe last plan failed: {problem}" if problem else ""
        asked = Message(role="user", content=f"Goal: {state.goal}{told}")
        return ModelCallDraft(
            purpose="plan",
            system=system,
            turns=(
                *_history(state, self.mode),
                *_shown(self._plan_shots(view)),
                MessageGroup(messages=(asked,), pinned=True, noted=True),
            ),
            format=OutputFormat(
                kind="json_schema", value=plan_schema(view.tools, self._fewest(state), self.max_plan)
            ),
            max_tokens=self.plan_tokens,
            next_hint="model",
        )

    def _draft_call(
        self, view: View, tool_name: str, task: str, problem: str | None = None
    ) -> ModelCallDraft:
        state = view.state
        tool = next(tool for tool in view.tools if tool.name == tool_name)
        problem = progress.last_problem(state) if problem is None else problem
        told = f"\nThe last try failed: {problem}" if problem else ""
        known = facts(progress.known(state)) if self.show_known else ""
        content = _joined(f"Known so far:\n{known}" if known else "", f"{task}{told}")
        return ModelCallDraft(
            purpose="act",
            system=f"You call the tool {tool.name} to do the task.",
            turns=(
                *_shown(call_shots(tool)),
                MessageGroup(messages=(Message(role="user", content=content),), pinned=True, noted=True),
            ),
            tools=(tool.spec,),
            tool_choice=ToolChoice(mode="named", name=tool.name, parallel=False),
            max_tokens=self.call_tokens,
            next_hint="tool",
        )

    def _draft_answer(self, view: View) -> ModelCallDraft:
        state = view.state
        guided = self.mode == "guided"
        goals = self._goals(view) if guided else ()
        known = [*progress.known(state), *progress.failed(state, goals)]
        pattern = grounded(known) if guided and self.grounded else None
        problem = (
            progress.last_problem(state) if state.closed and state.closed[-1].purpose == "answer" else ""
        )
        told = f"\nThe last answer was of no use: {problem}" if problem else ""
        asked = Message(role="user", content=question(facts(known), state.goal) + told)
        system = _joined(
            state.spec.instructions,
            "Answer every part of the question from the facts.",
            unavailable(view.withheld),
        )
        return ModelCallDraft(
            purpose="answer",
            system=system,
            turns=(
                *_history(state, self.mode),
                *_shown(answer_shots(view.tools) if guided else ()),
                MessageGroup(messages=(asked,), pinned=True, noted=True),
            ),
            format=OutputFormat(kind="regex", value=pattern) if pattern else OutputFormat(),
            max_tokens=state.spec.max_tokens,
            next_hint="end",
            samples=self.samples,
        )

    def _draft_turn(self, view: View, settled: bool) -> ModelCallDraft:
        state = view.state
        plan = "\n".join(f"{i}. {task}" for i, (_, task) in enumerate(state.plan or (), 1))
        specs = tuple(tool.spec for tool in view.tools)
        offered = () if settled else specs
        system = _joined(
            state.spec.instructions,
            "Call a tool for what it can find out or compute; do not guess." if offered and plan else "",
            unavailable(view.withheld),
        )
        # The plan stands behind the goal, so that system text and tools are the same in every run.
        task = _joined(state.goal, f"Plan:\n{plan}" if plan else "")
        goal = MessageGroup(messages=(Message(role="user", content=task),), pinned=True, noted=True)
        mode: Literal["auto", "none"] = "auto" if offered else "none"
        return ModelCallDraft(
            purpose="answer" if settled else "act",
            system=system,
            turns=(*_history(state, self.mode), goal, *_work(view), *self._next(state)),
            tools=offered,
            # What can no longer be called is shown all the same: the prompt begins as those before it.
            shown_tools=view.presented if offered else view.presented or specs,
            tool_choice=ToolChoice(mode=mode, parallel=self.parallel),
            max_tokens=state.spec.max_tokens,
            next_hint="end" if settled else "tool",
            samples=self.samples if settled else 1,
        )

    def _next(self, state: RunState) -> tuple[MessageGroup, ...]:
        """What the plan has next; a small model loses its place without."""
        last = state.closed[-1] if state.closed else None
        if not state.plan or last is None or (last.purpose != "plan" and not last.calls):
            return ()
        undone = [goal for goal in progress.by_tool(state) if goal.status == "open"]
        text = f"Next: {undone[0].task} (with {undone[0].tool})" if undone else ""
        return (MessageGroup(messages=(Message(role="user", content=text),), pinned=True),) if text else ()

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
        own = own_goals(goals, self._plan_shots(view), _given(view.state))
        if goals and len(own) < max(1, self.min_plan):
            return Unusable(problem="the plan is that of an example, not of the goal")
        decision = Decision(
            layer="agent",
            policy=self.name,
            subject="plan",
            chosen=", ".join(tool for tool, _ in own),
            candidates=tuple((name, None) for name in sorted(names)),
            constraint=f"{self.min_plan} to {self.max_plan} tasks",
        )
        return MadePlan(goals=own, decisions=(decision,))

    def _read_calls(self, view: View, answer: Exchange) -> Reading:
        tool = next((t for t in view.tools if t.name == answer.calls[0].name), None)
        if self.mode == "guided" and tool is not None:
            goal = self._next_goal(view)
            given = " ".join([_given(view.state), *progress.known(view.state), goal[1] if goal else ""])
            if progress.leaked(answer.calls[0].arguments, call_shots(tool), given):
                return Unusable(problem="the arguments are those of an example, not of the task")
        return WantsTools(calls=answer.calls)


def _given(state: RunState) -> str:
    """All that the user and earlier runs have said, from which a plan or a call may take its numbers."""
    notes = [text for _, text, _ in state.recalled or ()]
    return " ".join([state.goal, state.spec.instructions, *(m.content for m in state.history), *notes])


def _shown(shots: Sequence[Message]) -> tuple[MessageGroup, ...]:
    """Worked examples, which are never left out."""
    return (MessageGroup(messages=tuple(shots), pinned=True),) if shots else ()


def _history(state: RunState, mode: str) -> tuple[MessageGroup, ...]:
    """Earlier conversation. Small models get none of it."""
    return () if mode == "guided" else conversation(state)


def _turn(exchange: Exchange) -> MessageGroup:
    """A step that is over, as chat messages."""
    # A call that was written as text is shown as the call that it was read as, only.
    text = "" if exchange.calls and progress.call_shaped(exchange.text) else exchange.text
    messages = [Message(role="assistant", content=text, tool_calls=exchange.calls)]
    for index, result in sorted(exchange.results.items()):
        call = exchange.calls[index]
        messages.append(Message(role="tool", content=result.content, name=call.name, tool_call_id=call.id))
    if not exchange.calls:
        messages.append(Message(role="user", content=f"That was of no use: {exchange.detail}. Try again."))
    return MessageGroup(messages=tuple(messages))


def _work(view: View) -> Sequence[MessageGroup]:
    """This run's steps as chat turns: the assistant's calls and each result, matched by id.

    What was told of tools that came later stands behind the step before.
    """
    turns: list[MessageGroup] = []
    told = list(view.state.offers_told) if view.presented is not None else []
    for exchange in view.state.closed:
        while told and told[0][0] <= exchange.step and turns:
            turns.append(_behind(turns.pop(), told.pop(0)[1]))
        if exchange.purpose == "plan":
            continue
        turns.append(derived(exchange, _turn))
    for _, text in told:
        turns.append(_behind(turns.pop(), text))
    return turns


def _behind(group: MessageGroup, text: str) -> MessageGroup:
    """The group with a text behind its last message: templates may refuse a turn of its own."""
    *before, last = group.messages
    return replace(group, messages=(*before, replace(last, content=f"{last.content}\n\n{text}")))


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
