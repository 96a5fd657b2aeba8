"""Reflect: after a failure the model writes down a lesson, and all later tries are shown it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pentad.agent.exchange import Exchange
from pentad.agent.planning import progress
from pentad.agent.planning.allowance import bounded
from pentad.agent.planning.base import (
    Alternatives,
    Answers,
    Decided,
    Draft,
    ParallelDraft,
    Reading,
    Thought,
    Unusable,
    View,
)
from pentad.agent.planning.prompts import facts, question
from pentad.agent.planning.react import React
from pentad.agent.planning.thoughts import chose, json_form, labelled, think, told
from pentad.agent.state import RunState
from pentad.json_text import parse_json
from pentad.ranges import in_range

_LESSON, _TRIED, _CRITIQUE, _ACCEPTED = "lesson", "tried", "critique", "accepted"
_ASKS_LESSON = (
    "You look back at a step that failed. Say in one or two sentences what went wrong and what to do "
    "differently next time. Do not solve the task."
)
_ASKS_CRITIQUE = (
    "You check an answer against the facts. Say in `why` in one sentence what is wrong or missing, or why "
    "it is right; then say in `good` whether it may be given. Answer in JSON."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflect(React):
    """Works as `react`, and after each failure has the model write a lesson that later tries are shown.

    With `critique` the model also judges its own answer before it is given; what it finds wrong is a
    lesson too, and the answer is written anew. Lessons stay in the run's journal, so a restart knows
    them; there are at most `lessons` of them, and none where the budget pays for the retry only.

    Source: survey III-B, introspection and self-critique; Shinn et al. 2023, "Reflexion". Ours reflects
    after a failed step, not after a whole failed run, and keeps what was found out.
    """

    lessons: int = 3
    """Lessons of one run, at most; later failures are tried again without."""
    lesson_tokens: int = 96
    """Of one lesson or judgement, at most."""
    critique: bool = False
    """Whether the model judges its answer before it is given."""

    name = "reflect"

    def __post_init__(self) -> None:
        React.__post_init__(self)
        in_range("lessons", self.lessons, least=0)
        in_range("lesson_tokens", self.lesson_tokens, least=1)

    def exhausted(self, state: RunState) -> bool:
        """As `react`, whatever was thought in between."""
        return React.exhausted(self, _acting(state))

    def draft(self, view: View) -> Draft:
        """A lesson after a failure, the judgement of an answer, else what `react` asks, with the lessons."""
        state = view.state
        if state.step < state.spec.max_steps:
            thought = self._thought(view)
            if thought is not None:
                return thought
        draft = React.draft(self, replace(view, state=_acting(state)))
        lines = facts(self._lessons(state))
        text = f"Lessons from earlier tries; heed them:\n{lines}" if lines else ""
        if isinstance(draft, ParallelDraft):
            return replace(draft, calls=tuple(told(call, text) for call in draft.calls))
        if isinstance(draft, Decided | Alternatives):
            return draft
        judged = draft.purpose != "plan" and self._judges(view)
        return replace(told(draft, text), label=_TRIED if judged else "")

    def read(self, view: View, answer: Exchange) -> Reading:
        """Lessons and judgements are thoughts; the rest is as `react` reads it."""
        match answer.label:
            case "lesson":
                lesson = answer.text.strip()
                chosen = progress.short(lesson)
                kept = Thought(decisions=(chose(self.name, "lesson", chosen, constraint=self._bound(view)),))
                return kept if lesson else Unusable(problem="the lesson is empty")
            case "critique":
                return self._read_critique(answer)
            case "accepted":
                return Answers(text=answer.text)
        reading = React.read(self, replace(view, state=_acting(view.state)), answer)
        judged = isinstance(reading, Answers) and answer.label == _TRIED
        return Thought() if judged else reading

    def _thought(self, view: View) -> Draft | None:
        """What is to be thought about the last step; None where nothing is."""
        state = view.state
        last = state.closed[-1] if state.closed else None
        if last is None:
            return None
        if last.label == _TRIED and last.outcome == "thought":
            known = facts(progress.known(state))
            text = f"{question(known, state.goal)}\n\nAnswer: {last.text.strip()}"
            form = json_form({"why": {"type": "string", "maxLength": 200}, "good": {"type": "boolean"}})
            return think(_CRITIQUE, _ASKS_CRITIQUE, text, max_tokens=self.lesson_tokens, form=form)
        if last.label == _CRITIQUE and (last.outcome == "failed" or _judged(last)[0]):
            return Decided(purpose="answer", text=labelled(state, _TRIED)[-1].text, label=_ACCEPTED)
        if last.outcome != "failed" or last.label in (_LESSON, _CRITIQUE) or not self._may(view):
            return None
        done = ", ".join(f"{c.name}({c.arguments})" for c in last.calls) or progress.short(last.text)
        text = f"Goal: {state.goal}\n\nWhat was done: {done}\nWhat came of it: {progress.problem_of(last)}"
        return think(_LESSON, _ASKS_LESSON, text, max_tokens=self.lesson_tokens)

    def _may(self, view: View) -> bool:
        """Whether one more lesson may be asked for: it and the retry that it is for must be affordable."""
        asked = sum(e.label in (_LESSON, _CRITIQUE) for e in view.state.closed)
        return asked < self.lessons and bounded(view.state, self.lesson_tokens, least=2)

    def _judges(self, view: View) -> bool:
        # The judgement and, if it is bad, one more answer follow.
        last_step = view.state.step >= view.state.spec.max_steps - 2
        return self.critique and not last_step and self._may(view)

    def _lessons(self, state: RunState) -> list[str]:
        lessons = [e.text.strip() for e in state.closed if e.label == _LESSON and e.outcome == "thought"]
        judged = [_judged(e) for e in labelled(state, _CRITIQUE)]
        return list(dict.fromkeys([*lessons, *(why for good, why in judged if not good)]))

    def _read_critique(self, answer: Exchange) -> Reading:
        try:
            good, why = _judged(answer)
        except (ValueError, TypeError, KeyError, RecursionError):
            return Unusable(problem="the judgement is no JSON of the asked form")
        decision = chose(self.name, "critique", "accept" if good else "again", constraint=why or None)
        return Thought(decisions=(decision,))

    def _bound(self, view: View) -> str:
        asked = sum(e.label in (_LESSON, _CRITIQUE) for e in view.state.closed)
        return f"lesson {asked + 1} of {self.lessons}"


def _acting(state: RunState) -> RunState:
    """The state without what was only thought, as `react` would know it."""
    thought = (_LESSON, _CRITIQUE, _ACCEPTED)
    kept = tuple(e for e in state.exchanges if e.label not in thought and e.outcome != "thought")
    return replace(state, exchanges=kept)


def _judged(answer: Exchange) -> tuple[bool, str]:
    found = parse_json(answer.text)
    return bool(found["good"]), str(found["why"])
