"""Routers that learn from the answers that they led to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol, runtime_checkable

from pentad.execution.backend import Completion, Delta, StreamDone, fold
from pentad.model.routing.base import VectorOf
from pentad.types import Request


@runtime_checkable
class Learner(Protocol):
    """A router that wants to know what came of its choices."""

    def learns_from(self, request: Request) -> bool:
        """Whether the answer to it may tell something; others are not collected."""
        ...

    def note(self, request: Request, answer: Completion, vector: VectorOf) -> None:
        """Takes note of a whole answer."""
        ...


async def noted(
    answer: AsyncGenerator[Delta, None], note: Callable[[Completion], None]
) -> AsyncGenerator[Delta, None]:
    """The same deltas; an answer that comes to its end is told before its last delta."""
    kept: list[Delta] = []
    async with aclosing(answer) as deltas:
        async for delta in deltas:
            kept.append(delta)
            if isinstance(delta, StreamDone):
                note(fold(kept))
            yield delta
