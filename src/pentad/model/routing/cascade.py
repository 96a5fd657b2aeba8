"""Cascades: a model's whole answer is judged, and kept or given up for that of the next model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar, runtime_checkable

from pentad.errors import BackendFailed, BudgetExceeded, DeadlineExceeded, Overloaded, Unavailable
from pentad.execution.backend import Completion, Delta, StreamDone, TextDelta, fold
from pentad.model.routing.base import ModelRouter
from pentad.types import Clock, Decision, Energy, Request, RunContext, Usage

Number = TypeVar("Number", int, float)
ANSWER: Final = "answer"
"""Subject of the decision whether an answer is kept."""
Ask = Callable[[Request], AsyncGenerator[Delta, None]]
"""Asks the model that the request names."""
At = Callable[[str], Request]
"""What was asked, as the model of that name is to be asked it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a router makes of an answer."""

    keeps: bool
    chance: float | None
    """That it is right; None: nothing tells."""


@runtime_checkable
class Cascade(ModelRouter, Protocol):
    """A router that sees each answer and may ask the next of its decision's candidates, in their order."""

    def verdict(self, request: Request, answer: Completion) -> Verdict:
        """Whether the answer of the request's model is kept."""
        ...


def following(cascade: Cascade, request: Request) -> tuple[str, ...]:
    """Whom to ask where the request's model is not sure; nobody where it was not this router's choice, or
    where several answers were asked for."""
    decision = request.routed
    if decision is None or decision.policy != cascade.name or request.sampling.n > 1:
        return ()
    names = [name for name, _ in decision.candidates]
    return tuple(names[names.index(request.model) + 1 :]) if request.model in names else ()


async def cascaded(
    cascade: Cascade,
    request: Request,
    ask: Ask,
    at: At,
    *,
    logprobs: Callable[[str], bool],
    clock: Clock,
) -> AsyncGenerator[Delta, None]:
    """The first answer that is kept, or the last model's. Its usage holds all that the others took.

    Args:
        request: routed.
        at: the request for another model.
        logprobs: whether the model of that name tells log probabilities.

    Raises what the first model raises.
    """
    rest, context, asked = list(following(cascade, request)), request.context, request
    spent, kept = Usage(), list[Delta]()
    while rest:
        began_s = clock()
        try:
            deltas = await _whole(ask(_telling(asked) if logprobs(asked.model) else asked))
        except (BudgetExceeded, DeadlineExceeded, Unavailable, Overloaded, BackendFailed) as error:
            if not kept:
                raise
            for delta in _told(kept, spent, _decision(cascade, "kept", request.model, error.message)):
                yield delta
            return
        answer = fold(deltas)
        verdict = cascade.verdict(asked, answer)
        spent = _sum(spent, answer.usage)
        if request.sampling.logprobs is None:
            deltas = [replace(d, logprobs=()) if isinstance(d, TextDelta) else d for d in deltas]
        if verdict.keeps:
            for delta in _told(deltas, spent, _decision(cascade, "kept", asked.model, None, verdict)):
                yield delta
            return
        kept, name = deltas, rest.pop(0)
        context = _left(context, answer.usage, clock() - began_s)
        decision = _decision(cascade, name, asked.model, "not sure enough", verdict)
        asked, request = replace(at(name), context=context, routed=decision), asked
    async with aclosing(ask(asked)) as deltas_:
        begun = False
        try:
            async for delta in deltas_:
                begun = True
                if isinstance(delta, StreamDone):
                    delta = StreamDone(usage=_sum(spent, delta.usage))
                yield delta
        except (BudgetExceeded, DeadlineExceeded, Unavailable, Overloaded, BackendFailed) as error:
            if begun or not kept:
                raise
            for delta in _told(kept, spent, _decision(cascade, "kept", request.model, error.message)):
                yield delta


async def _whole(answer: AsyncGenerator[Delta, None]) -> list[Delta]:
    async with aclosing(answer) as deltas:
        return [delta async for delta in deltas]


def _telling(request: Request) -> Request:
    """The same with log probabilities."""
    if request.sampling.logprobs is not None:
        return request
    return replace(request, sampling=replace(request.sampling, logprobs=0))


def _told(deltas: Sequence[Delta], usage: Usage, decision: Decision) -> list[Delta]:
    """The answer with the usage of all, and why it is this one."""
    whole = replace(usage, decisions=(*usage.decisions, decision))
    return [StreamDone(usage=whole) if isinstance(delta, StreamDone) else delta for delta in deltas]


def _decision(
    cascade: Cascade, chosen: str, model: str, constraint: str | None, verdict: Verdict | None = None
) -> Decision:
    return Decision(
        layer="model",
        policy=cascade.name,
        subject=ANSWER,
        chosen=chosen,
        candidates=((model, None if verdict is None else verdict.chance),),
        constraint=constraint,
    )


def _left(context: RunContext, usage: Usage, seconds: float) -> RunContext:
    """What is left of budget and deadline once an answer has been paid for."""
    budget, objective = context.budget, context.objective
    return replace(
        context,
        budget=replace(
            budget,
            tokens=_less(budget.tokens, usage.total_tokens),
            cost=_less(budget.cost, usage.cost),
            wall_s=_less(budget.wall_s, seconds),
        ),
        objective=replace(
            objective,
            deadline_s=_less(objective.deadline_s, seconds),
            max_cost=_less(objective.max_cost, usage.cost),
        ),
    )


def _less(limit: Number | None, taken: Number) -> Number | None:
    return None if limit is None else max(limit - limit, limit - taken)


def _sum(first: Usage, second: Usage) -> Usage:
    """What both took, one behind the other."""
    energy = second.energy if first.energy is None else first.energy
    if first.energy is not None and second.energy is not None:
        energy = Energy(
            joules=first.energy.joules + second.energy.joules,
            source=second.energy.source,
            basis=second.energy.basis,
        )
    return Usage(
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        cached_tokens=first.cached_tokens + second.cached_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
        reasoning_tokens=first.reasoning_tokens + second.reasoning_tokens,
        cost=first.cost + second.cost,
        energy=energy,
        spans=(*first.spans, *second.spans),
        decisions=(*first.decisions, *second.decisions),
    )
