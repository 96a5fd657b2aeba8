"""Standbys: another model answers where the one that was asked fails, or does not begin in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from pentad.errors import BackendFailed, Overloaded, PentadError, Unavailable
from pentad.execution.backend import Delta, NoticeDelta
from pentad.ranges import in_range
from pentad.types import Clock, Decision, Request

Ask = Callable[[Request], AsyncGenerator[Delta, None]]
"""Asks the model that the request names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """Which model answers in another's place, and when."""

    model: str
    """The name that it is served under."""
    after_s: float = 10.0
    """How long the other has to begin its answer."""
    again_s: float = 30.0
    """How long the other is not asked again once it failed, so that not every request waits for it."""

    def __post_init__(self) -> None:
        in_range("after_s", self.after_s, above=0)
        in_range("again_s", self.again_s, least=0)


class Watch:
    """What is known of one model that has a standby: whether it failed lately, and why."""

    def __init__(self, standby: Standby, clock: Clock) -> None:
        self.standby = standby
        self._clock = clock
        self._until_s = clock()
        self._why = ""

    async def answer(self, request: Request, instead: Request, ask: Ask) -> AsyncGenerator[Delta, None]:
        """The answer to `request`, or where its model fails before it began, or is late, that to `instead`.

        Once the answer has begun it is not handed over: part of it is delivered. A refusal of the request
        itself (InvalidRequest, Forbidden ...) is passed on, for it holds of any model.

        Raises Unavailable, naming both troubles, where the standby cannot begin either.
        """
        why = f"it failed lately: {self._why}" if self._clock() < self._until_s else ""
        if not why:
            deltas = ask(request)
            async with aclosing(deltas):
                try:
                    first = await asyncio.wait_for(anext(deltas), self.standby.after_s)
                except TimeoutError:
                    why = f"it did not begin within {self.standby.after_s:g} s"
                except (Unavailable, Overloaded, BackendFailed) as error:
                    why = error.message
                else:
                    self._why = ""
                    yield first
                    async for delta in deltas:
                        yield delta
                    return
            self._why, self._until_s = why, self._clock() + self.standby.again_s
        told = f"{self.standby.model!r} answers in place of {request.model!r}: {why}"
        async with aclosing(ask(replace(instead, routed=self._decision(request.model, why)))) as deltas:
            try:
                first = await anext(deltas)
            except PentadError as error:
                raise Unavailable(
                    f"model {request.model!r} does not answer ({why}), and its standby "
                    f"{self.standby.model!r} cannot: {error.message}",
                    hint=error.hint or "try again later",
                ) from None
            yield NoticeDelta(text=told)
            yield first
            async for delta in deltas:
                yield delta

    def _decision(self, model: str, why: str) -> Decision:
        return Decision(
            layer="model",
            policy="standby",
            subject="model",
            chosen=self.standby.model,
            candidates=((model, None), (self.standby.model, None)),
            constraint=why,
            at_s=self._clock(),
        )
