"""What another policy would have done in a run, from its record; nothing is run again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pentad.agent.events import Record
from pentad.agent.model_events import ModelAnswered, ModelAsked
from pentad.errors import InvalidRequest
from pentad.model.control.situation import Situation
from pentad.model.control.what_if import Outcome, WhatIf, situation_of, what_if
from pentad.model.routing.base import ModelRouter
from pentad.types import Decision

BASIS = (
    "predictions made at the time, from speeds, queues, prices and success as they were then; where the "
    "policy chooses what was done, by what was observed, weighted by the inverse of its propensity"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedCall:
    """One model call of the run under another policy."""

    step: int
    attempt: int
    what_if: WhatIf
    observed: Outcome

    @property
    def estimate(self) -> Outcome:
        """What the call would have taken."""
        return self.what_if.corrected(self.observed)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReplay:
    """A run's decisions under another policy.

    Later calls are taken as they were asked, whatever an earlier one would have said otherwise.
    """

    policy: str
    calls: tuple[ReplayedCall, ...]
    unexplained: int
    """Model calls whose decisions do not say what they were made from; these are left out."""

    @property
    def same(self) -> int:
        """How many decisions come out as they were."""
        return sum(call.what_if.same for call in self.calls)

    @property
    def observed(self) -> Outcome:
        """What the run's calls took."""
        return total(call.observed for call in self.calls)

    @property
    def estimate(self) -> Outcome:
        """What they would have taken."""
        return total(call.estimate for call in self.calls)


def replay_policy(records: Sequence[Record], policy: ModelRouter) -> PolicyReplay:
    """The run's decisions made once more. Raises InvalidRequest where none says what it was made from."""
    calls = []
    unexplained = 0
    for answer, took_s in _answers(records):
        decision = _joint(answer)
        if decision is None:
            unexplained += 1
            continue
        usage = answer.usage
        observed = Outcome(
            seconds=took_s,
            money=usage.cost,
            tokens=float(usage.total_tokens),
            joules=0.0 if usage.energy is None else usage.energy.joules,
        )
        found = what_if(decision, policy)
        calls.append(ReplayedCall(step=answer.step, attempt=answer.attempt, what_if=found, observed=observed))
    if not calls:
        raise _unexplained(unexplained)
    return PolicyReplay(policy=policy.name, calls=tuple(calls), unexplained=unexplained)


def first_situation(records: Sequence[Record]) -> Situation:
    """What the run's first joint decision was made from. Raises InvalidRequest where there is none."""
    answers = 0
    for answer, _ in _answers(records):
        answers += 1
        decision = _joint(answer)
        found = None if decision is None else situation_of(decision)
        if found is not None:
            return found
    raise _unexplained(answers)


def _unexplained(answers: int) -> InvalidRequest:
    return InvalidRequest(
        f"none of the run's {answers} model calls says what its decision was made from",
        hint="run with --router elastic, whose decisions do",
        param="policy",
    )


def total(outcomes: Iterable[Outcome]) -> Outcome:
    """The sum; success is the mean of what is known."""
    every = list(outcomes)
    known = [each.success for each in every if each.success is not None]
    return Outcome(
        seconds=sum(each.seconds for each in every),
        money=sum(each.money for each in every),
        tokens=sum(each.tokens for each in every),
        joules=sum(each.joules for each in every),
        success=sum(known) / len(known) if known else None,
    )


def _answers(records: Sequence[Record]) -> Iterator[tuple[ModelAnswered, float]]:
    """Each answer with the seconds since it was asked for."""
    asked_s: dict[tuple[int, int], float] = {}
    for record in records:
        match record.event:
            case ModelAsked() as event:
                asked_s[event.step, event.attempt] = record.clock_s
            case ModelAnswered() as event:
                began_s = asked_s.get((event.step, event.attempt), record.clock_s)
                yield event, max(0.0, record.clock_s - began_s)


def _joint(answer: ModelAnswered) -> Decision | None:
    return next((d for d in answer.usage.decisions if situation_of(d) is not None), None)
