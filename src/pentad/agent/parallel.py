"""Parallel work of one step: done at once, written down in one defined order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
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
        if place in self._before:
            await self._over[self._before[place]].wait()
        yield
        if place in self._over:
            self._over[place].set()


async def together(work: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Does all of it at once; the first error ends the rest and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in work:
                group.create_task(part)
    except ExceptionGroup as errors:
        # One reason is enough to end the run; the others are of the same kind.
        raise errors.exceptions[0] from None
