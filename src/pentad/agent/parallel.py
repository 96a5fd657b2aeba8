"""Parallel work of one step: done at once, written down in one defined order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


class Turns:
    """The order in which parallel parts write down what they came to, whatever finishes first.

    Args:
        places: in that order. A part that is none of them writes at once.
    """

    def __init__(self, places: Iterable[int]) -> None:
        order = list(places)
        self._over = {place: asyncio.Event() for place in order}
        self._before = dict(zip(order[1:], order, strict=False))

    @asynccontextmanager
    async def of(self, place: int) -> AsyncIterator[None]:
        """Waits until every part before `place` has written; the body is this one's turn."""
        await self.come(place)
        yield
        self.over(place)

    async def come(self, place: int) -> None:
        """Waits until every part before `place` has written."""
        if place in self._before:
            await self._over[self._before[place]].wait()

    def over(self, place: int) -> None:
        """The part at `place` has written."""
        if place in self._over:
            self._over[place].set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One of the parallel model calls of a step."""

    number: int = 0
    of: int = 1
    goal: int | None = None
    """The place in the plan of the sub-goal that it serves."""
    label: str = ""
    """What the planner calls it."""
    turns: Turns | None = None
    waiting: set[int] | None = None
    """The calls of the step that have reserved nothing yet; all of them share it."""

    @property
    def unreserved(self) -> int:
        """How many calls of the step have yet to reserve their part of the budget, this one among them."""
        return max(1, len(self.waiting or ()))

    def reserved(self) -> None:
        """This one has reserved its part."""
        if self.waiting is not None:
            self.waiting.discard(self.number)

    async def come(self) -> None:
        """Waits until the earlier ones have journaled their answers."""
        if self.turns is not None:
            await self.turns.come(self.number)

    def over(self) -> None:
        """This one has."""
        if self.turns is not None:
            self.turns.over(self.number)


ALONE = Branch()


async def together(work: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Does all of it at once; the first error ends the rest and is raised alone."""
    parts = list(work)
    if len(parts) == 1:  # needs no task of its own
        await parts[0]
        return
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except ExceptionGroup as errors:
        # One reason is enough to end the run; the others are of the same kind.
        raise errors.exceptions[0] from None
