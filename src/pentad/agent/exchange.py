"""Exchange: one answer of the model in a run, and what its tool calls returned; and how events change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pentad.agent.events import PlannerDecided, StepEnded, StepOutcome
from pentad.agent.model_events import Candidate, ModelAnswered, Purpose, SampleSelected
from pentad.agent.sub_run_events import Coordinated
from pentad.agent.tool_events import ResultReduced, ToolReturned
from pentad.agent.values import changed
from pentad.types import ToolCall


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One model answer and what its tool calls returned."""

    step: int
    purpose: Purpose
    attempt: int = 0
    """The number in the step of the model call; 0 where none was asked."""
    branch: int = 0
    """Its place among the parallel calls of the step."""
    branches: int = 1
    """How many calls the step has in parallel."""
    goal: int | None = None
    """The place in the plan of the sub-goal that it serves; None where it serves the whole goal."""
    label: str = ""
    """What the planner called it."""
    candidates: tuple[Candidate, ...] = ()
    """The answers that were sampled, where there are several; the other fields are of the selected one."""
    selected: bool = True
    """Whether one of the candidates has been taken."""
    first: int = 0
    """The number in the step of its first call; those of earlier branches come before."""
    text: str = ""
    reasoning: str = ""
    reason: str = "stop"
    calls: tuple[ToolCall, ...] = ()
    coordinated: bool = False
    """Whether the team's coordinator decided the step, and no model was asked."""
    results: Mapping[int, ToolReturned] = field(default_factory=dict)
    """By the call's place in `calls`; what was reduced is here as the model is shown it."""
    reduced: tuple[int, ...] = ()
    """Places of the results that were reduced."""
    outcome: StepOutcome | None = None
    """None while the step is under way."""
    detail: str = ""

    def with_reduced(self, event: ResultReduced) -> Exchange:
        """The exchange with a shorter result, if it is this one's."""
        place = event.index - self.first
        if event.step != self.step or place not in self.results:
            return self
        results = {**self.results, place: replace(self.results[place], content=event.content)}
        return changed(self, results=results, reduced=(*self.reduced, place))

    @property
    def open_calls(self) -> tuple[int, ...]:
        """Places of the calls that have no result yet."""
        return tuple(i for i in range(len(self.calls)) if i not in self.results)


Exchanges = tuple[Exchange, ...]


def sampled(exchange: Exchange) -> tuple[Exchange, ...]:
    """Each candidate of an exchange as if it were the only answer."""
    return tuple(
        changed(exchange, text=c.text, reasoning=c.reasoning, reason=c.reason, calls=c.tool_calls)
        for c in exchange.candidates
    )


def after_answer(exchanges: Exchanges, event: ModelAnswered | Coordinated | PlannerDecided) -> Exchanges:
    """With the exchange that the answer opens."""
    first = sum(len(e.calls) for e in exchanges if e.step == event.step)
    if isinstance(event, Coordinated):
        made = Exchange(
            step=event.step,
            purpose="coordinate" if event.calls else "answer",
            text=event.answer,
            calls=event.calls,
            coordinated=True,
            detail=event.problem,
        )
    elif isinstance(event, PlannerDecided):
        made = Exchange(
            step=event.step, purpose=event.purpose, text=event.text, calls=event.calls, label=event.label
        )
    else:
        made = Exchange(
            step=event.step,
            purpose=event.purpose,
            attempt=event.attempt,
            branch=event.branch,
            branches=event.branches,
            goal=event.goal,
            label=event.label,
            candidates=event.candidates,
            selected=not event.candidates,
            first=first,
            text=event.text,
            reasoning=event.reasoning,
            reason=event.reason,
            calls=event.tool_calls,
        )
    return (*exchanges, made)


def after_selection(exchanges: Exchanges, event: SampleSelected) -> Exchanges:
    """With one of the candidates of the newest exchange taken."""
    *before, last = exchanges
    return (*before, changed(sampled(last)[event.index], selected=True))


def after_result(exchanges: Exchanges, event: ToolReturned) -> Exchanges:
    """With the result at its call."""

    def put(e: Exchange) -> Exchange:
        place = event.index - e.first
        here = e.step == event.step and e.outcome is None and 0 <= place < len(e.calls)
        return changed(e, results={**e.results, place: event}) if here and place not in e.results else e

    return tuple(put(e) for e in exchanges)


def after_step(exchanges: Exchanges, event: StepEnded) -> Exchanges:
    """With the exchanges of the step closed, each with its own outcome where there are several."""
    ended = {branch: (o.outcome, o.detail) for branch, o in enumerate(event.branches)}

    def close(e: Exchange) -> Exchange:
        outcome, detail = ended.get(e.branch, (event.outcome, event.detail))
        return changed(e, outcome=outcome, detail=detail)

    return tuple(close(e) if e.outcome is None else e for e in exchanges)
