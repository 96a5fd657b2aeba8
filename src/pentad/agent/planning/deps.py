"""Deps: describe what went wrong, explain why, plan again; and select the sub-goal that is nearest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pentad.agent.exchange import Exchange
from pentad.agent.planning import progress
from pentad.agent.planning.allowance import bounded
from pentad.agent.planning.base import Draft, ModelCallDraft, Reading, Thought, Unusable, View
from pentad.agent.planning.graph import PlanGraph
from pentad.agent.planning.prompts import facts
from pentad.agent.planning.react import React
from pentad.agent.planning.thoughts import chose, json_form, think
from pentad.agent.state import RunState
from pentad.json_text import parse_json
from pentad.ranges import in_range

_DESCRIBE, _EXPLAIN, _REVISE, _RANK = "describe", "explain", "revise", "rank"
_ASKS_DESCRIBE = (
    "Describe the situation after a step that failed: what has been reached, what is at hand, what is "
    "missing. Two or three short sentences, no advice."
)
_ASKS_EXPLAIN = (
    "Explain why the step failed: which condition was not met, and what must come before it. One or two "
    "short sentences, no plan."
)
_ASKS_RANK = (
    "For each task say how many steps it takes from how things are now, as whole numbers in the order of "
    "the tasks. Answer in JSON."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps(PlanGraph):
    """Plans a graph of sub-goals, takes the nearest one that may begin, and plans again from an explanation.

    Of the sub-goals that wait for none, the one that the model expects to take the fewest steps is done
    first; it is asked once for each plan. When one fails, the model describes the situation, explains the
    failure and plans anew with both before it. One sub-goal is worked on at a time.

    Source: Wang et al. 2023, "Describe, Explain, Plan and Select" (DEPS). Ours has the model predict the
    steps that are left, where theirs trains a selector.
    """

    replans: int = 2
    """Plans made anew after failures, at most."""
    thought_tokens: int = 96
    """Of one description, explanation or ranking, at most."""

    name = "deps"

    def __post_init__(self) -> None:
        PlanGraph.__post_init__(self)
        in_range("thought_tokens", self.thought_tokens, least=1)

    def exhausted(self, state: RunState) -> bool:
        """Only where there is no plan at all; a thought that fails is left out."""
        return state.plan is None and React.exhausted(self, state)

    def draft(self, view: View) -> Draft:
        """The plan, its ranking, the nearest sub-goal; after a failure the way to another plan."""
        state = view.state
        if state.plan is None or state.step >= state.spec.max_steps:
            return React.draft(self, view)
        thought = self._about_failure(view)
        if thought is not None:
            return thought
        ready = self._ready(view)
        if not ready:
            return self._draft_answer(view)
        if (
            len(ready) > 1
            and not self._thought(state, _RANK)
            and bounded(state, self.thought_tokens, least=2)
        ):
            return self._draft_rank(view)
        steps = self._ranked(state)
        return self._draft_task(view, min(ready, key=lambda place: (steps.get(place, 0), place)))

    def read(self, view: View, answer: Exchange) -> Reading:
        """Descriptions, explanations and rankings are thoughts; the rest is as `graph` reads it."""
        if answer.label == _RANK:
            return self._read_rank(view, answer)
        if answer.label in (_DESCRIBE, _EXPLAIN):
            text = answer.text.strip()
            said = Thought(decisions=(chose(self.name, answer.label, progress.short(text)),))
            return said if text else Unusable(problem="it says nothing")
        return PlanGraph.read(self, view, answer)

    def _plans(self, view: View) -> bool:
        return view.state.plan is None and PlanGraph._plans(self, view)

    def _since_plan(self, state: RunState) -> tuple[Exchange, ...]:
        made = [n for n, e in enumerate(state.closed) if e.outcome in ("planned", "replanned")]
        return state.closed[made[-1] + 1 :] if made else state.closed

    def _thought(self, state: RunState, label: str) -> Exchange | None:
        """The newest thought of that label since the plan was made; one that failed counts."""
        return next((e for e in reversed(self._since_plan(state)) if e.label == label), None)

    def _about_failure(self, view: View) -> Draft | None:
        """What comes after a failure until there is another plan; None where nothing does."""
        state = view.state
        made = sum(e.outcome in ("planned", "replanned") for e in state.closed)
        acted = [e for e in self._since_plan(state) if e.purpose == "act"]
        failed = acted and acted[-1].outcome == "failed"
        if not failed or made > self.replans or self._thought(state, _REVISE) is not None:
            return None
        described, explained = self._thought(state, _DESCRIBE), self._thought(state, _EXPLAIN)
        if described is None:
            # All three and a step of the plan must be affordable, or the failed one is tried again.
            return self._draft_described(view) if bounded(state, self.plan_tokens, least=4) else None
        if explained is None:
            return self._draft_explained(view, described)
        return self._draft_revision(view, described, explained)

    def _situation(self, view: View) -> str:
        state = view.state
        goals = self._goals(view)
        known = facts(progress.known(state))
        lines = [f"- {g.task} (with {g.tool}): {g.problem or g.status}" for g in goals]
        return "\n\n".join(
            filter(
                None,
                [
                    f"Goal: {state.goal}",
                    "Plan:\n" + "\n".join(lines),
                    f"Found out:\n{known}" if known else "",
                ],
            )
        )

    def _draft_described(self, view: View) -> ModelCallDraft:
        return think(_DESCRIBE, _ASKS_DESCRIBE, self._situation(view), max_tokens=self.thought_tokens)

    def _draft_explained(self, view: View, described: Exchange) -> ModelCallDraft:
        text = f"{self._situation(view)}\n\nSituation: {described.text.strip()}"
        return think(_EXPLAIN, _ASKS_EXPLAIN, text, max_tokens=self.thought_tokens)

    def _draft_revision(self, view: View, described: Exchange, explained: Exchange) -> ModelCallDraft:
        draft = self._draft_plan(view)
        *before, asked = draft.turns
        text = (
            f"{self._situation(view)}\n\nSituation: {described.text.strip()}\nWhy it failed: "
            f"{explained.text.strip()}\n\nPlan what is left to do, with what must come before it."
        )
        turn = replace(asked, messages=(replace(asked.messages[0], content=text),))
        return replace(draft, turns=(*before, turn), label=_REVISE)

    def _draft_rank(self, view: View) -> ModelCallDraft:
        goals = self._goals(view)
        lines = "\n".join(f"{n}. {g.task} (with {g.tool}): {g.status}" for n, g in enumerate(goals, 1))
        known = facts(progress.known(view.state))
        text = f"Goal: {view.state.goal}\n\nTasks:\n{lines}\n\nFound out:\n{known or '- nothing yet'}"
        count = {"minItems": len(goals), "maxItems": len(goals)}
        steps = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, **count}
        return think(
            _RANK, _ASKS_RANK, text, max_tokens=self.thought_tokens, form=json_form({"steps": steps})
        )

    def _ranked(self, state: RunState) -> dict[int, int]:
        """The steps that each sub-goal is expected to take; empty where nobody could say."""
        ranked = self._thought(state, _RANK)
        if ranked is None or ranked.outcome != "thought":
            return {}
        return dict(enumerate(_steps(ranked)))

    def _read_rank(self, view: View, answer: Exchange) -> Reading:
        try:
            steps = _steps(answer)
        except (ValueError, TypeError, KeyError, RecursionError):
            return Unusable(problem="the ranking is no JSON of the asked form")
        plan = view.state.plan or ()
        if len(steps) != len(plan):
            return Unusable(problem=f"the ranking has {len(steps)} numbers for {len(plan)} tasks")
        ready = self._ready(view)
        nearest = min(ready, key=lambda place: (steps[place], place)) if ready else 0
        candidates = tuple((plan[place][1], float(steps[place])) for place in ready)
        bound = "fewest steps left of those that may begin"
        return Thought(
            decisions=(chose(self.name, "select", plan[nearest][1], candidates=candidates, constraint=bound),)
        )


def _steps(answer: Exchange) -> list[int]:
    return [int(number) for number in parse_json(answer.text)["steps"]]
