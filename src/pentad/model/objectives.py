"""Objectives and budgets of one request, enforced: refused when they cannot be met, cut where they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from pentad.errors import BudgetExceeded, DeadlineExceeded, Incompatible, PentadError
from pentad.execution.backend import ChoiceDone, Delta, StreamDone, TextDelta, ToolCallDelta
from pentad.model.prices import Price
from pentad.types import Budget, Decision, Objective, Request, RunContext, Usage

LIMIT = "limit"
"""Subject of the decision that says which limit an answer ended at."""


def refuse_unenforced(objective: Objective, enforced: frozenset[str]) -> None:
    """Raises Incompatible for wishes that nothing here acts on, rather than let them seem granted.

    Args:
        enforced: fields of the objective that the router keeps.
    """
    for field, name, instead in (
        ("min_quality", "quality", "choose the model by its name, or serve with --router cheapest"),
        ("max_energy_j", "max_energy_j", "limit tokens or time"),
    ):
        value = getattr(objective, field)
        if value is not None and field not in enforced:
            raise Incompatible(
                f"{name} is {value:g}, but nothing here enforces it yet",
                hint=f"leave it out and {instead}",
                param=name,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimit:
    """How long a request may take, and which field says so."""

    field: str
    seconds: float

    def error(self) -> PentadError:
        """What is raised when nothing of the answer has been made in time."""
        message = f"no answer was begun within the {self.seconds:g} s of {self.field}"
        hint = f"raise {self.field}, or ask for less"
        if self.field.startswith("budget"):
            return BudgetExceeded(message, hint=hint, param=self.field)
        return DeadlineExceeded(message, hint=hint, param=self.field)


def time_limit(context: RunContext) -> TimeLimit | None:
    """The tighter of deadline and wall-time budget."""
    limits = [
        TimeLimit(field=field, seconds=seconds)
        for field, seconds in (
            ("budget.wall_s", context.budget.wall_s),
            ("slo.deadline_s", context.objective.deadline_s),
        )
        if seconds is not None
    ]
    return min(limits, key=lambda limit: limit.seconds, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimit:
    """How many tokens all choices together may have, and which field says so."""

    field: str
    tokens: int


def needs_count(context: RunContext) -> bool:
    """Whether the prompt must be counted to know what the answer may have."""
    limits = (context.budget.tokens, context.budget.cost, context.objective.max_cost)
    return any(limit is not None for limit in limits)


def fitted(
    request: Request, *, prompt_tokens: int, price: Price, context_length: int
) -> tuple[Request, TokenLimit | None]:
    """The request with an answer no longer than its budgets pay for, and the limit if one binds.

    Raises BudgetExceeded when not even one token of each choice is paid for.
    """
    limit = _token_limit(request.context, prompt_tokens, price)
    sampling = request.sampling
    if limit is None:
        return request, None
    each = limit.tokens // sampling.n
    if each < max(1, sampling.min_tokens):
        raise BudgetExceeded(
            f"the prompt has {prompt_tokens} tokens, {max(0, limit.tokens)} are left by {limit.field}",
            hint=f"raise {limit.field}, shorten the prompt or lower n and min_tokens",
            param=limit.field,
        )
    asked = context_length - prompt_tokens if sampling.max_tokens is None else sampling.max_tokens
    if each >= asked:
        return request, None
    return replace(request, sampling=replace(sampling, max_tokens=each)), limit


def _token_limit(context: RunContext, prompt_tokens: int, price: Price) -> TokenLimit | None:
    budget: Budget = context.budget
    limits = []
    if budget.tokens is not None:
        limits.append(TokenLimit(field="budget.tokens", tokens=budget.tokens - prompt_tokens))
    for field, money in (("budget.cost", budget.cost), ("slo.max_cost", context.objective.max_cost)):
        if money is not None:
            tokens = price.affordable(money, prompt_tokens)
            if tokens is not None:
                limits.append(TokenLimit(field=field, tokens=tokens))
    return min(limits, key=lambda limit: limit.tokens, default=None)


async def marked(
    deltas: AsyncGenerator[Delta, None], limit: TokenLimit | None
) -> AsyncGenerator[Delta, None]:
    """The same deltas; the usage says so when an answer ended at the limit."""
    cut = False
    async with aclosing(deltas) as stream:
        async for delta in stream:
            if isinstance(delta, ChoiceDone):
                cut = cut or delta.reason == "length"
            elif isinstance(delta, StreamDone) and cut and limit is not None:
                usage = delta.usage
                delta = StreamDone(usage=replace(usage, decisions=(*usage.decisions, _cut_at(limit.field))))
            yield delta


async def within(
    deltas: AsyncGenerator[Delta, None],
    limit: TimeLimit,
    request: Request,
    count: Callable[[Request, list[str]], Awaitable[Usage]],
) -> AsyncGenerator[Delta, None]:
    """The deltas that come in time. What has begun by then ends with `length`, and the usage says why.

    Args:
        count: the usage of the request and the texts made so far.

    Raises the limit's error when nothing has begun by then.
    """
    until_s = asyncio.get_running_loop().time() + limit.seconds
    made: list[list[str]] = [[] for _ in range(request.sampling.n)]
    open_choices = set(range(request.sampling.n))
    begun = False
    async with aclosing(deltas):
        while True:
            try:
                async with asyncio.timeout_at(until_s):
                    delta = await anext(deltas)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not begun:
                    raise limit.error() from None
                break
            match delta:
                case TextDelta():
                    made[delta.choice].append(delta.text)
                case ToolCallDelta():
                    made[delta.choice].append((delta.name or "") + delta.arguments)
                case ChoiceDone():
                    open_choices.discard(delta.choice)
            begun = begun or isinstance(delta, TextDelta | ToolCallDelta | ChoiceDone)
            yield delta
    texts = ["".join(pieces) for pieces in made]
    usage = await count(request, texts)
    for choice in sorted(open_choices):
        yield ChoiceDone(reason="length", choice=choice)
    yield StreamDone(usage=replace(usage, decisions=(*usage.decisions, _cut_at(limit.field))))


def _cut_at(field: str) -> Decision:
    return Decision(
        layer="model", policy="objective", subject=LIMIT, chosen="the answer was cut", constraint=field
    )
